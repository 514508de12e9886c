//! The names of a program's files: of descriptors, and of paths.

/// The files of a program's world; each name is a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Slot {
    /// File A, read and write.
    A,
    /// File A opened once more: a position of its own.
    A2,
    /// File A, read only.
    ARead,
    /// File A, write only.
    AWrite,
    /// File B, read and write.
    B,
    /// File B, `O_APPEND`.
    BAppend,
    /// File C, `O_DIRECT`.
    CDirect,
    /// File C, through the page cache.
    C,
    /// A directory.
    Dir,
    /// `/dev/null`.
    Null,
    /// `/dev/zero`.
    Zero,
    /// `/dev/full`.
    Full,
    /// A pipe with something in it, reading end.
    PipeR,
    /// Its writing end.
    PipeW,
    /// An empty `O_NONBLOCK` pipe, reading end.
    QuietR,
    /// Its writing end.
    QuietW,
    /// A pipe of one page that is full, reading end.
    TinyR,
    /// Its writing end.
    TinyW,
    /// A number without a file, until something is copied there.
    Spare,
}

impl Slot {
    /// Every slot.
    pub const ALL: [Slot; 19] = [
        Slot::A,
        Slot::A2,
        Slot::ARead,
        Slot::AWrite,
        Slot::B,
        Slot::BAppend,
        Slot::CDirect,
        Slot::C,
        Slot::Dir,
        Slot::Null,
        Slot::Zero,
        Slot::Full,
        Slot::PipeR,
        Slot::PipeW,
        Slot::QuietR,
        Slot::QuietW,
        Slot::TinyR,
        Slot::TinyW,
        Slot::Spare,
    ];
}

/// Paths of a program's world; where nothing else is said, in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// File A.
    A,
    /// File B.
    B,
    /// A symbolic link to A.
    Link,
    /// A symbolic link to itself.
    Loop,
    /// The directory itself.
    Dot,
    /// A directory in it.
    Sub,
    /// A file in that.
    Inner,
    /// Nothing.
    Missing,
    /// Nothing, in the directory in it.
    MissingInner,
    /// A file as if it were a directory.
    Through,
    /// A name that no file system takes.
    Overlong,
    /// A way to A of some length.
    LongWay,
    /// The longest way to A that there is.
    LongestWay,
    /// One byte more.
    TooLong,
    /// No name at all.
    Empty,
    /// Nothing, until somebody makes it.
    New(u8),
    /// `/dev/null`.
    DevNull,
}

impl Name {
    /// The path.
    pub fn text(self) -> String {
        let way = |len: usize| {
            let dots = "./".repeat((len - 1) / 2);
            format!("{dots}{}A", if len.is_multiple_of(2) { "/" } else { "" })
        };
        match self {
            Name::A => "A".into(),
            Name::B => "B".into(),
            Name::Link => "link".into(),
            Name::Loop => "loop".into(),
            Name::Dot => ".".into(),
            Name::Sub => "sub".into(),
            Name::Inner => "sub/inner".into(),
            Name::Missing => "missing".into(),
            Name::MissingInner => "sub/missing".into(),
            Name::Through => "A/x".into(),
            Name::Overlong => "n".repeat(300),
            Name::LongWay => way(200),
            Name::LongestWay => way(4095),
            Name::TooLong => way(4096),
            Name::Empty => String::new(),
            Name::New(n) => format!("new{n}"),
            Name::DevNull => "/dev/null".into(),
        }
    }

    /// The file of the world that it leads to: 0 is A, 1 is B.
    pub fn inode(self) -> Option<usize> {
        match self {
            Name::A | Name::Link | Name::LongWay | Name::LongestWay => Some(0),
            Name::B => Some(1),
            _ => None,
        }
    }
}
