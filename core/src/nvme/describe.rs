//! What a controller says of itself, its namespaces and its health.

use super::controller::{ADMIN_TIMEOUT_NS, Controller};
use super::identify::NamespaceInfo;
use super::log::{Health, RecentError, error_entry};
use super::spec::{Command, cns, log_page};
use super::{Error, Platform, spec};
use crate::hal::device::PAGE;

impl<P: Platform> Controller<P> {
    /// Describes a namespace.
    ///
    /// # Errors
    /// [`Error::NoNamespace`], [`Error::Format`], or that of the controller.
    pub fn namespace(&self, nsid: u32) -> Result<NamespaceInfo, Error> {
        let count = self.info().namespaces;
        if nsid == 0 || nsid > count {
            return Err(Error::NoNamespace { nsid, count });
        }
        self.command(|platform, admin, _| {
            let mut data = [0; PAGE];
            admin.identify(platform, cns::NAMESPACE, nsid, ADMIN_TIMEOUT_NS, &mut data)?;
            NamespaceInfo::parse(&data, nsid, count)
        })
    }

    /// The ids of the active namespaces above `after`, ascending, as many as
    /// `to` holds. Answers how many there were.
    ///
    /// # Errors
    /// That of the controller.
    pub fn active_namespaces(&self, after: u32, to: &mut [u32]) -> Result<usize, Error> {
        self.command(|platform, admin, _| {
            let mut data = [0; PAGE];
            let cns = cns::ACTIVE_NAMESPACES;
            admin.identify(platform, cns, after, ADMIN_TIMEOUT_NS, &mut data)?;
            let ids = data.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id));
            let mut count = 0;
            for (place, id) in to.iter_mut().zip(ids.take_while(|&id| id != 0)) {
                *place = id;
                count += 1;
            }
            Ok(count)
        })
    }

    fn log(&self, page: u32, data: &mut [u8; PAGE], bytes: u32) -> Result<(), Error> {
        let command = Command {
            opcode: spec::admin::GET_LOG_PAGE,
            nsid: spec::ALL_NAMESPACES,
            // Dwords to return, 0's based.
            dword10: page | (bytes / 4 - 1) << 16,
            ..Command::default()
        };
        self.command(|platform, admin, _| {
            admin.read_page(platform, "get log page", command, ADMIN_TIMEOUT_NS, data)
        })
    }

    /// SMART / health information.
    ///
    /// # Errors
    /// That of the controller.
    pub fn health(&self) -> Result<Health, Error> {
        let mut data = [0; PAGE];
        self.log(log_page::HEALTH, &mut data, 512)?;
        Ok(Health::parse(&data))
    }

    /// The newest entry of the controller's own error log, if it has any.
    ///
    /// # Errors
    /// That of the controller.
    pub fn error_log(&self) -> Result<Option<RecentError>, Error> {
        let mut data = [0; PAGE];
        self.log(log_page::ERROR, &mut data, 64)?;
        Ok(error_entry(&data[..64]))
    }

    /// The last commands that failed here, newest first, with their raw
    /// status; and how many there were in all.
    pub fn recent_errors(&self) -> ([Option<RecentError>; 16], u64) {
        self.with_admin(|_, admin| (admin.errors.newest(), admin.errors.count))
    }

    /// Reads the log pages that events have named, one bit a page: before that
    /// the controller tells of nothing more of the kind. What they say is asked
    /// for by whom it concerns.
    #[cold]
    pub(super) fn read_logs(&self, pages: u32) {
        let mut data = [0; PAGE];
        for (page, bytes) in
            [(log_page::ERROR, 64), (log_page::HEALTH, 512), (log_page::CHANGED_NAMESPACES, 4096)]
        {
            if pages >> page & 1 != 0 {
                // One that has no such page tells no more of it; what is wrong
                // with the controller is seen to by `command`.
                let _ = self.log(page, &mut data, bytes);
            }
        }
    }

    /// Asynchronous events so far: errors, health, notices (among them those of
    /// namespaces that have changed), others. Rings look for them while they
    /// have something in flight, ten times a second, and read the log that
    /// the controller wants to be read before it tells of the next.
    pub fn events(&self) -> [u32; 4] {
        self.with_admin(|_, admin| admin.event_counts)
    }
}
