//! The fleet of the whole cluster, as the broker uses it.

use umbel_actors::{Realm, ports::BoxFuture};
use umbel_core::{
    device::Connect,
    ids::{ClientId, DeviceId, NodeId, SessionEpoch},
    shadow,
};

use super::fleet::{End, FleetError, FleetPort, Known, Opened, Pulse, answered};

impl FleetPort for Realm {
    fn connect(
        &self,
        client: ClientId,
        connect: Connect,
    ) -> BoxFuture<'static, Result<Opened, FleetError>> {
        let realm = self.clone();
        Box::pin(async move {
            let opened = realm
                .connect(&client, connect)
                .await
                .map_err(FleetError::from)?;
            Ok(Opened {
                epoch: opened.epoch,
                session_present: opened.session_present,
                pulse: Pulse::new(move |now| opened.pulse.touch(now)),
            })
        })
    }

    fn disconnect(
        &self,
        client: ClientId,
        epoch: SessionEpoch,
        end: End,
    ) -> BoxFuture<'static, ()> {
        let realm = self.clone();
        Box::pin(async move {
            let told = realm
                .disconnect(&client, epoch, end.reason, end.expiry, end.with_will)
                .await;
            if let Err(error) = told {
                tracing::debug!(%client, %error, "the end of a connection is recorded later");
            }
        })
    }

    fn moved(&self, client: ClientId, epoch: SessionEpoch) -> BoxFuture<'static, ()> {
        let realm = self.clone();
        Box::pin(async move {
            if let Err(error) = realm.lost(&client, epoch).await {
                tracing::debug!(%client, %error, "the owner hears of a client's move later");
            }
        })
    }

    fn missed(&self, client: &ClientId) {
        Self::missed(self, client);
    }

    fn gateway_of(&self, client: &ClientId) -> Option<NodeId> {
        Self::gateway_of(self, client)
    }

    fn current_epoch(&self, client: &ClientId) -> Option<SessionEpoch> {
        let view = self.local().client(client).ok()??;
        Some(view.record.session.as_ref()?.epoch)
    }

    fn known(&self, client: &ClientId) -> Known {
        match self.local().client(client) {
            Ok(Some(view)) if view.record.session.is_some() => Known::Session,
            Ok(_) => Known::NoSession,
            Err(_) => Known::Unclear,
        }
    }

    fn shadow(
        &self,
        device: DeviceId,
        request: shadow::Request,
    ) -> BoxFuture<'static, Result<(), FleetError>> {
        let realm = self.clone();
        Box::pin(async move { answered(realm.shadow(&device, request).await) })
    }
}
