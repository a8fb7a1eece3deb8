//! The settings of a cluster: fields of `raft_core::Config` by their names.

use std::error::Error;

use raft_core::{Config, Promotion};

/// Sets these fields, and checks the whole.
pub fn apply(config: &mut Config, settings: &[(String, String)]) -> Result<(), Box<dyn Error>> {
    for (name, value) in settings {
        match name.as_str() {
            "append_bytes_max" => config.append_bytes_max = value.parse()?,
            "inflight_messages_max" => config.inflight_messages_max = value.parse()?,
            "inflight_bytes_max" => config.inflight_bytes_max = value.parse()?,
            "uncommitted_bytes_max" => config.uncommitted_bytes_max = value.parse()?,
            "unapplied_bytes_max" => config.unapplied_bytes_max = value.parse()?,
            "waiting_reads_max" => config.waiting_reads_max = value.parse()?,
            "frame_bytes_max" => config.frame_bytes_max = value.parse()?,
            "snapshot_after_bytes" => config.snapshot_after_bytes = value.parse()?,
            "trailing_bytes_max" => config.trailing_bytes_max = value.parse()?,
            "snapshot_chunk_bytes_max" => config.snapshot_chunk_bytes_max = value.parse()?,
            "lease_clock_drift_ppm" => config.lease_clock_drift_ppm = Some(value.parse()?),
            "promotion" if value == "when_caught_up" => {
                config.promotion = Promotion::WhenCaughtUp;
            }
            _ => return Err(format!("no setting {name}={value}").into()),
        }
    }
    Ok(config.validate().map_err(|error| error.to_string())?)
}
