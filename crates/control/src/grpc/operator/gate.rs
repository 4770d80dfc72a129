//! The gate: nobody gets past it without a good token, the role and the reach that the call needs; who is refused,
//! here or further in, is in the audit log.

use std::future::Future;

use tonic::metadata::MetadataMap;
use tonic::{Request, Response};

use super::calls::{Call, Reach};
use super::{Answer, OperatorApi};
use crate::app::audit::Act;
use crate::app::view::Sight;
use crate::app::{Actor, App};
use crate::error::Error;

impl OperatorApi {
    /// Reads for anybody who may look; the sight shows what the caller may see and nothing else.
    pub(super) async fn look<Q: Call, T: Send + 'static>(
        &self,
        request: Request<Q>,
        work: impl FnOnce(Q, &Sight<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        let (actor, question) = self.admit(request).await?;
        let read = move |sight: &Sight<'_>| work(question, sight);
        Ok(Response::new(self.app.view_as(&actor, read).await?))
    }

    /// Runs a use case for a caller who may; to its end, whether the caller waits for it or not.
    pub(super) async fn act<Q: Call, T, F>(
        &self,
        request: Request<Q>,
        work: impl FnOnce(App, Actor, Q) -> F + Send,
    ) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (actor, question) = self.admit(request).await?;
        let act = act_of(&question);
        let (app, work) = (
            self.app.clone(),
            work(self.app.clone(), actor.clone(), question),
        );
        let done = self.app.to_its_end(async move {
            let done = work.await;
            if let Err(Error::Forbidden(why)) = &done {
                app.refused(Some(&actor), act, why).await;
            }
            done
        });
        Ok(Response::new(done.await?))
    }

    /// Who calls, and with what, once the call is allowed at all.
    pub(super) async fn admit<Q: Call>(&self, request: Request<Q>) -> Result<(Actor, Q), Error> {
        let (metadata, _, question) = request.into_parts();
        let act = act_of(&question);
        let actor = match self.caller(&metadata).await {
            Ok(actor) => actor,
            Err(err) => {
                if let Error::Unauthenticated(why) = &err {
                    self.app.refused(None, act, why).await;
                }
                return Err(err);
            }
        };
        let may = actor
            .must_be(question.role())
            .and_then(|()| match Q::REACH {
                Reach::Scoped => Ok(()),
                Reach::Fleet => actor.must_be_for_all(),
            });
        if let Err(Error::Forbidden(why)) = &may {
            self.app.refused(Some(&actor), act, why).await;
        }
        may.map(|()| (actor, question))
    }

    async fn caller(&self, metadata: &MetadataMap) -> Result<Actor, Error> {
        let header = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer "));
        let missing = || Error::Unauthenticated("there is no bearer token".to_owned());
        self.app.authenticate(token.ok_or_else(missing)?).await
    }
}

fn act_of<Q: Call>(question: &Q) -> Act {
    Act {
        action: question.action(),
        target: question.target(),
        reason: question.reason().to_owned(),
        detail: String::new(),
    }
}
