//! The command `keyfleet-sim`.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    let arguments = keyfleet_sim::cli::Arguments::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(keyfleet_sim::cli::run(arguments))
}
