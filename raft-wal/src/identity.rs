//! Whose directory this is: the file `IDENTITY`, two checksummed copies of the same 4096 bytes.

use raft_core::NodeId;

use crate::config::{CLUSTER_BYTES_MAX, WalConfig};
use crate::disk::{Disk, NamedFile, random, remove, sync_directory};
use crate::error::{DiskError, OpenError};
use crate::format::{BLOCK_BYTES, FORMAT_VERSION, put_u32, put_u64, u32_at, u64_at};

/// The name of the file.
pub(crate) const IDENTITY_FILE: &str = "IDENTITY";
const TEMPORARY_FILE: &str = "IDENTITY.tmp";

const MAGIC: &[u8; 8] = b"RAFTWALI";

const AT_VERSION: usize = 8;
const AT_CRC: usize = 12;
const AT_INCARNATION: usize = 16;
const AT_NODE: usize = 32;
const AT_STAGE: usize = 40;
const AT_CLUSTER_BYTES: usize = 41;
const AT_CLUSTER: usize = 48;

const STAGE_FRESH: u8 = 1;
const STAGE_ESTABLISHED: u8 = 2;

/// Whose log a directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The name of the cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// A random number drawn when the directory was created. A node that comes back with another
    /// one has lost what it promised, and must not be taken for the old one.
    pub incarnation: u128,
}

/// The identity as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) identity: Identity,
    /// Was the log ever opened completely? From then on it has a segment, always; before, nothing
    /// was ever promised.
    pub(crate) established: bool,
}

impl Stored {
    /// A new identity for a directory that has none.
    pub(crate) fn draw(disk: &dyn Disk, config: &WalConfig) -> Result<Self, DiskError> {
        let incarnation = u128::from(random(disk)?) << 64 | u128::from(random(disk)?);
        let identity = Identity { cluster: config.cluster.clone(), node: config.node, incarnation };
        Ok(Self { identity, established: false })
    }

    /// What the file says, and whether both of its copies do.
    pub(crate) fn load(disk: &dyn Disk) -> Result<(Self, bool), OpenError> {
        let (bytes, _) = NamedFile::read(disk, IDENTITY_FILE, 2 * BLOCK_BYTES as u64)?;
        let (first, second) = bytes.split_at(bytes.len().min(BLOCK_BYTES));
        match (Self::decode(first), Self::decode(second)) {
            (Ok(one), Ok(two)) if one == two => Ok((one, true)),
            (Ok(_), Ok(_)) => {
                Err(OpenError::corrupt(IDENTITY_FILE, 0, "its two copies contradict each other"))
            }
            (Ok(one), Err(CopyError::Damaged)) | (Err(CopyError::Damaged), Ok(one)) => {
                Ok((one, false))
            }
            (Err(CopyError::Version(found)), _) | (_, Err(CopyError::Version(found))) => {
                Err(OpenError::UnsupportedVersion { file: IDENTITY_FILE.to_owned(), found })
            }
            (Err(CopyError::Damaged), Err(CopyError::Damaged)) => {
                Err(OpenError::corrupt(IDENTITY_FILE, 0, "both of its copies are damaged"))
            }
        }
    }

    /// Puts it on disk, in place of what was there, at once or not at all.
    pub(crate) fn store(&self, disk: &dyn Disk) -> Result<(), DiskError> {
        let mut file = NamedFile::create(disk, TEMPORARY_FILE.to_owned())?;
        let copy = self.encode();
        file.write(&[copy, copy].concat(), 0)?;
        file.sync()?;
        file.rename(disk, IDENTITY_FILE.to_owned())?;
        sync_directory(disk)
    }

    /// Refuses a directory that belongs to somebody else.
    pub(crate) fn check_owner(&self, config: &WalConfig) -> Result<(), OpenError> {
        let Identity { cluster, node, incarnation: _ } = &self.identity;
        if (cluster, node) == (&config.cluster, &config.node) {
            return Ok(());
        }
        Err(OpenError::ForeignDirectory {
            dir: config.dir.clone(),
            found_cluster: cluster.clone(),
            found_node: *node,
            cluster: config.cluster.clone(),
            node: config.node,
        })
    }

    fn encode(&self) -> [u8; BLOCK_BYTES] {
        let Identity { cluster, node, incarnation } = &self.identity;
        let mut copy = [0; BLOCK_BYTES];
        copy[..8].copy_from_slice(MAGIC);
        put_u32(&mut copy, AT_VERSION, FORMAT_VERSION);
        copy[AT_INCARNATION..AT_NODE].copy_from_slice(&incarnation.to_le_bytes());
        put_u64(&mut copy, AT_NODE, node.get());
        copy[AT_STAGE] = if self.established { STAGE_ESTABLISHED } else { STAGE_FRESH };
        let bytes = u8::try_from(cluster.len()).expect("the configuration bounds the name");
        copy[AT_CLUSTER_BYTES] = bytes;
        copy[AT_CLUSTER..AT_CLUSTER + cluster.len()].copy_from_slice(cluster.as_bytes());
        let crc = checksum(&copy);
        put_u32(&mut copy, AT_CRC, crc);
        copy
    }

    fn decode(copy: &[u8]) -> Result<Self, CopyError> {
        let sound = copy.len() == BLOCK_BYTES
            && &copy[..8] == MAGIC
            && checksum(copy) == u32_at(copy, AT_CRC);
        if !sound {
            return Err(CopyError::Damaged);
        }
        let version = u32_at(copy, AT_VERSION);
        if version != FORMAT_VERSION {
            return Err(CopyError::Version(version));
        }
        Self::interpret(copy).ok_or(CopyError::Damaged)
    }

    fn interpret(copy: &[u8]) -> Option<Self> {
        let bytes = usize::from(copy[AT_CLUSTER_BYTES]);
        let cluster = copy[AT_CLUSTER..].get(..bytes).filter(|_| bytes <= CLUSTER_BYTES_MAX)?;
        let mut incarnation = [0; 16];
        incarnation.copy_from_slice(&copy[AT_INCARNATION..AT_NODE]);
        let identity = Identity {
            cluster: String::from_utf8(cluster.to_vec()).ok()?,
            node: NodeId::new(u64_at(copy, AT_NODE))?,
            incarnation: u128::from_le_bytes(incarnation),
        };
        let established = match copy[AT_STAGE] {
            STAGE_FRESH => false,
            STAGE_ESTABLISHED => true,
            _ => return None,
        };
        Some(Self { identity, established })
    }
}

/// Why a copy does not count.
enum CopyError {
    Damaged,
    Version(u32),
}

fn checksum(copy: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&copy[..AT_CRC]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &copy[AT_CRC + 4..])
}

/// Is this the name of a file that we write before it gets its real name?
pub(crate) fn is_temporary(name: &str) -> bool {
    let numbered = ["spare-", "incomplete-snapshot-"].iter().find_map(|prefix| {
        let number = name.strip_prefix(prefix)?.strip_suffix(".tmp")?;
        number.parse::<u64>().ok()
    });
    name == TEMPORARY_FILE || numbered.is_some()
}

/// Removes what an interrupted run of ours left behind, and nothing else: the directory may hold files
/// of others.
pub(crate) fn remove_temporary_files(disk: &dyn Disk, names: &[String]) -> Result<(), DiskError> {
    let mut temporary = names.iter().filter(|name| is_temporary(name)).peekable();
    if temporary.peek().is_none() {
        return Ok(());
    }
    for name in temporary {
        remove(disk, name)?;
    }
    sync_directory(disk)
}

#[cfg(test)]
mod tests {
    use raft_core::Membership;

    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn an_incarnation_is_made_of_two_random_numbers() {
        let node = NodeId::new(1).unwrap();
        let config = WalConfig::new("d", "c", node, Membership::new([node]).unwrap());
        let (disk, same) = (SimDisk::new(5), SimDisk::new(5));
        let drawn = Stored::draw(&disk, &config).unwrap().identity.incarnation;
        let [high, low] = [(); 2].map(|()| same.random().unwrap());
        assert!(high != 0 && low != 0);
        assert_eq!(drawn.to_be_bytes(), [high.to_be_bytes(), low.to_be_bytes()].concat()[..]);
    }
}
