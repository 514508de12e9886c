//! What a copy is from or to, as the command line names it.

use std::ffi::OsString;
use std::path::PathBuf;

use annulus_linux::vfio::PciAddress;

/// How the name of a namespace starts.
const PREFIX: &str = "vfio:";

/// A file, or a namespace of an NVMe controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A file, or a directory to put it in.
    File(PathBuf),
    /// A namespace.
    Namespace {
        /// Its controller.
        address: PciAddress,
        /// Its number.
        nsid: u32,
    },
}

impl End {
    /// Reads `vfio:ADDRESS`, `vfio:ADDRESS/NAMESPACE` or a path.
    ///
    /// # Errors
    /// What is wrong with the name of a namespace.
    pub fn parse(text: OsString) -> Result<Self, String> {
        let Some(name) = text.to_str().and_then(|text| text.strip_prefix(PREFIX)) else {
            return Ok(Self::File(text.into()));
        };
        let (address, nsid) = match name.split_once('/') {
            None => (name, 1),
            Some((address, nsid)) => {
                let number = nsid.parse().ok().filter(|&nsid| nsid != 0);
                let wrong = || format!("\"{nsid}\" is no namespace; they are numbered from 1");
                (address, number.ok_or_else(wrong)?)
            }
        };
        let address = address.parse().map_err(|error: annulus_linux::vfio::Error| {
            format!("{error} (a file of this name is ./{PREFIX}{name})")
        })?;
        Ok(Self::Namespace { address, nsid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn namespaces_and_files_are_told_apart() {
        let address: PciAddress = "0000:00:03.0".parse().unwrap();
        let parse = |text: &str| End::parse(text.into());
        assert_eq!(parse("vfio:0000:00:03.0"), Ok(End::Namespace { address, nsid: 1 }));
        assert_eq!(parse("vfio:00:03.0/7"), Ok(End::Namespace { address, nsid: 7 }));
        for file in ["x", "./vfio:0000:00:03.0", "/dev/nvme0n1", "0000:00:03.0", "vfio"] {
            assert_eq!(parse(file), Ok(End::File(file.into())));
        }
        let bytes = OsString::from_vec(b"vfio:\xff".to_vec());
        assert_eq!(End::parse(bytes.clone()), Ok(End::File(bytes.into())));
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        for (text, words) in [
            ("vfio:", "is no PCI address"),
            ("vfio:nvme0n1", "a file of this name is ./vfio:nvme0n1"),
            ("vfio:0000:00:03.0/", "they are numbered from 1"),
            ("vfio:0000:00:03.0/0", "they are numbered from 1"),
            ("vfio:0000:00:03.0/x", "\"x\" is no namespace"),
            ("vfio:0000:00:03.0/1/2", "\"1/2\" is no namespace"),
        ] {
            let message = End::parse(text.into()).unwrap_err();
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
