//! What a node tells the others about itself besides where it talks Raft, in [`NodeConfig::note`]: words of the
//! form `key=value` between spaces. Whoever does not know a key passes it over.
//!
//! [`NodeConfig::note`]: raft_grpc::NodeConfig

/// Where its clients go.
const HTTP: &str = "http=";

/// The note of a node that answers HTTP here.
pub(crate) fn of_http(address: &str) -> String {
    format!("{HTTP}{address}")
}

/// Where the node of this note answers HTTP, if it says so.
pub(crate) fn http(note: &str) -> Option<&str> {
    let address = note.split(' ').find_map(|word| word.strip_prefix(HTTP));
    address.filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_tells_the_http_address_and_what_later_versions_add() {
        assert_eq!(http(&of_http("a:1")), Some("a:1"));
        assert_eq!(http("zone=b http=a:1 x"), Some("a:1"));
        for note in ["", "http", "http=", "xhttp=a:1"] {
            assert_eq!(http(note), None, "{note}");
        }
    }
}
