//! A device's place on the PCI bus.

use std::fmt;
use std::str::FromStr;

use super::Error;

/// A PCI function by domain, bus, device and function, as `lspci -D` prints
/// it.
///
/// ```
/// use annulus_linux::vfio::PciAddress;
/// let address: PciAddress = "00:03.0".parse()?;
/// assert_eq!(address.to_string(), "0000:00:03.0");
/// # Ok::<(), annulus_linux::vfio::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    // 32 bits: domains above 0xffff are given to devices behind Intel VMD.
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

/// `text` as a hexadecimal number of `least` to `most` digits.
fn hex(text: &str, least: usize, most: usize) -> Option<u32> {
    // Digits only: from_str_radix would take a sign.
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
    if !digits || text.len() < least || text.len() > most {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

fn parse(text: &str) -> Option<PciAddress> {
    let (front, function) = text.rsplit_once('.')?;
    let (front, device) = front.rsplit_once(':')?;
    let (domain, bus) = match front.rsplit_once(':') {
        Some((domain, bus)) => (hex(domain, 4, 8)?, bus),
        None => (0, front),
    };
    let (bus, device, function) = (hex(bus, 2, 2)?, hex(device, 2, 2)?, hex(function, 1, 1)?);
    if device > 0x1f || function > 7 {
        return None;
    }
    // Each checked above.
    Some(PciAddress { domain, bus: bus as u8, device: device as u8, function: function as u8 })
}

impl FromStr for PciAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::Address { given: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, printed) in [
            ("0000:00:03.0", "0000:00:03.0"),
            ("00:03.0", "0000:00:03.0"),
            ("0001:AB:1f.7", "0001:ab:1f.7"),
            ("10000:01:00.0", "10000:01:00.0"),
        ] {
            assert_eq!(text.parse::<PciAddress>().expect(text).to_string(), printed);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "nvme0",
            "0000:00:03",
            "00:03",
            "0000:00:20.0",
            "0000:00:03.8",
            "0000:00:03.0 ",
            "+000:00:03.0",
            "000:00:03.0",
            "0:0:3.0",
            "/dev/nvme0",
            "0000:00:03.0/../..",
            "1:2:3:4.0",
        ] {
            assert!(matches!(text.parse::<PciAddress>(), Err(Error::Address { .. })), "{text}");
        }
    }
}
