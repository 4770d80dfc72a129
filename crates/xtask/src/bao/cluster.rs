//! More nodes for a lasting server: a raft cluster that shares the seal and the certificate of its first node.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Bao, at, config, retrying_port};
use crate::{net, wait};

/// How long the leader may take to trust a new node.
const VOTE: Duration = Duration::from_secs(30);

impl Bao {
    /// Starts another node of this server's cluster, with its files in `dir`, and waits until it has the data. Three
    /// nodes survive the loss of one.
    ///
    /// # Errors
    /// This server is in memory, or the other does not start or does not join.
    pub fn join(&self, dir: &Path) -> Result<Self> {
        if !self.is_lasting() {
            bail!("a server in memory has no cluster to join");
        }
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // A new node has no vote until it was well for a while, by default 10 s.
        let soon = "-server-stabilization-time=1s";
        self.cli(&["operator", "raft", "autopilot", "set-config", soon])?;
        let node = retrying_port(|| {
            let port = net::free_port_pair()?;
            config::write_joining(dir, port, &self.dir, &self.address())?;
            Self::start_server(self.found.clone(), dir, port)
        })?;
        wait::until(VOTE, || self.has_vote(&node).then_some(()))
            .context("the new node gets no vote in the cluster")?;
        Ok(node)
    }

    fn has_vote(&self, node: &Self) -> bool {
        let peers = self.cli(&["operator", "raft", "list-peers", "-format=json"]);
        let servers = peers.and_then(|peers| at(&peers, "/data/config/servers"));
        let name = config::node_id(node.port);
        servers.is_ok_and(|servers| {
            let servers = servers.as_array().into_iter().flatten();
            servers
                .into_iter()
                .any(|server| server["node_id"] == name.as_str() && server["voter"] == true)
        })
    }

    /// `true` where this node is the active one of its cluster.
    pub fn is_leader(&self) -> bool {
        let said = self.cli(&["read", "-format=json", "sys/leader"]);
        said.is_ok_and(|said| at(&said, "/data/is_self").is_ok_and(|is_self| is_self == true))
    }
}
