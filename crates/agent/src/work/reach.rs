//! Where a connector is kept decides how it is read, written, removed and tried; nothing else of the agent knows.

use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{Client, Error, Execution, Observed, Surface, Write};
use serde_json::Value;

/// One connector, in a space of Kibana or as an inference endpoint of its Elasticsearch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach<'a> {
    pub(super) client: &'a Client,
    pub(super) surface: &'a Surface,
    pub(super) space: &'a SpaceId,
    pub(super) id: &'a str,
}

impl Reach<'_> {
    /// What is there; `None`: nothing of this id.
    pub(super) async fn look(self) -> Result<Option<Observed>, Error> {
        match self.surface {
            Surface::Kibana => self.client.get(self.space, self.id).await,
            Surface::Elasticsearch { task } => self.client.get_endpoint(task, self.id).await,
        }
    }

    /// True where Kibana answers and shows no such space. To credentials that may not see it a space that is there looks
    /// the same, but then Kibana refuses calls into it with 403 and not with 404.
    pub(super) async fn is_space_gone(self) -> bool {
        let visible = self.client.spaces().await;
        visible.is_ok_and(|spaces| !spaces.iter().any(|space| space.id == *self.space))
    }

    /// Makes it, or replaces it.
    pub(super) async fn write(self, create: bool, body: &Write) -> Result<Observed, Error> {
        let Self {
            client, space, id, ..
        } = self;
        match (self.surface, create) {
            (Surface::Kibana, true) => client.create(space, id, body).await,
            (Surface::Kibana, false) => client.update(space, id, body).await,
            (Surface::Elasticsearch { task }, true) => client.create_endpoint(task, id, body).await,
            (Surface::Elasticsearch { task }, false) => {
                client.update_endpoint(task, id, body).await
            }
        }
    }

    /// Takes it away; it may be gone already.
    pub(super) async fn delete(self) -> Result<(), Error> {
        let deleted = match self.surface {
            Surface::Kibana => self.client.delete(self.space, self.id).await,
            Surface::Elasticsearch { task } => self.client.delete_endpoint(task, self.id).await,
        };
        deleted.map(drop)
    }

    /// How many rules and others refer to it; `None`: this is not told.
    pub(super) async fn references(self) -> Result<Option<u32>, Error> {
        match self.surface {
            Surface::Kibana => {
                let all = self.client.list(self.space).await?;
                let ours = all.iter().find(|observed| observed.id == self.id);
                Ok(ours.and_then(|observed| observed.referenced_by_count))
            }
            // Elasticsearch itself refuses to remove what is in use.
            Surface::Elasticsearch { .. } => Ok(None),
        }
    }

    /// One live call.
    pub(super) async fn try_out(self, params: &Value) -> Result<Execution, Error> {
        match self.surface {
            Surface::Kibana => self.client.execute(self.space, self.id, params).await,
            Surface::Elasticsearch { task } => {
                self.client.try_endpoint(task, self.id, params).await
            }
        }
    }
}
