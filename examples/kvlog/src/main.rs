//! `kvlog FILE put KEY VALUE` and `kvlog FILE get KEY`.

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    const USAGE: &str = "usage: kvlog FILE put KEY VALUE, or kvlog FILE get KEY";
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (path, key) = match args[..] {
        [path, "put", key, _] | [path, "get", key] => (path, key.parse()?),
        _ => return Err(USAGE.into()),
    };
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
    let (mut writer, mut reader) = kvlog::open(file, 1024)?;
    if let [_, _, _, value] = args[..] {
        return Ok(writer.put(key, value.as_bytes())?);
    }
    let value = reader.get(key)?.ok_or("no such key")?;
    println!("{}", String::from_utf8_lossy(&value));
    Ok(())
}
