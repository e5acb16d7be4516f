//! Says what was proven, as a finding and as a member of the JSON object.

use std::net::Ipv6Addr;

use super::Proof;
use super::verdict::{Heard, Querier, Verdict};
use crate::commands::check::findings::Findings;
use crate::commands::check::findings::State::{Ok, Problem, Warning};
use crate::control::instance::Instance;
use crate::sys::clock;

impl Proof<'_> {
    /// The verdict by what has been heard so far.
    pub(super) fn verdict_now(&self) -> Verdict {
        let [before, after] = self.heard;
        let heard_before = match self.instance {
            Instance::Running { last_query, .. } => last_query.is_some(),
            Instance::Perhaps | Instance::None => false,
        };
        let listened = clock::now().since(self.began);
        let querier = Querier::of(self.queried || heard_before, listened);
        Verdict::of(before, after, querier)
    }

    /// Says what is proven. Returns the member of the JSON object, behind a comma.
    pub(super) fn judge(&self, verdict: Verdict, findings: &mut Findings) -> String {
        let runs = matches!(self.instance, Instance::Running { .. });
        let (state, template) = match verdict {
            Verdict::Snoops if runs => (
                Ok,
                "prove|the gateway's side snoops MLD: %2 solicitations arrived before the group \
                 was joined, %3 after, so mldproxy is what you need, and it runs",
            ),
            Verdict::Snoops => (
                Problem,
                "prove|the gateway's side snoops MLD: %2 solicitations arrived before the group \
                 was joined, %3 after, so mldproxy is what you need|run it: `mldproxy run %1` with \
                 the LAN's interface, on OpenWrt `service mldproxy start`",
            ),
            Verdict::Floods => (
                Ok,
                "prove|the gateway's side does not snoop MLD: %2 solicitations arrived before the \
                 group was joined, %3 after, so that does not keep hosts unreachable",
            ),
            Verdict::FloodsNow => (
                Warning,
                "prove|the gateway's side does not snoop MLD now: %2 solicitations arrived before \
                 the group was joined, %3 after; but no MLD query was heard, and without a querier \
                 a switch that snoops floods|`mldproxy check --prove --wait 130 %1` waits for one",
            ),
            Verdict::Unasked => (
                Ok,
                "prove|the gateway %4 answered %5 of %6 requests without a solicitation: it routes \
                 %7 to this router, or knows addresses by other means, so no group has to be \
                 joined for them",
            ),
            Verdict::OnlyBefore => (
                Warning,
                "prove|inconclusive: %2 solicitations arrived before the group was joined, and \
                 none after|prove it again in a minute; the gateway may limit its solicitations, \
                 or packets were lost",
            ),
            Verdict::Mixed => (
                Warning,
                "prove|inconclusive: the gateway %4 answered without a solicitation before the \
                 group was joined, and solicited %3 times after|prove it again in a minute",
            ),
            Verdict::Silent => (
                Warning,
                "prove|inconclusive: the gateway %4 neither solicited the addresses nor answered: \
                 it may drop what comes from addresses that it did not assign, answer no echo \
                 requests, or not have %7 on this link|see whether `ping -c 3 %8` is answered; if \
                 so, ping a LAN host from outside, run mldproxy, and ping it again",
            ),
        };
        let scene = self.scene;
        let [before, after] = self.heard;
        let (gateway, prefix) = (scene.gateway.to_string(), scene.prefix.to_string());
        // The address of the gateway as ping takes it.
        let zone = if scene.gateway.is_unicast_link_local() {
            ["%", scene.name].concat()
        } else {
            String::new()
        };
        let words = [
            scene.name,
            &before.solicitations.to_string(),
            &after.solicitations.to_string(),
            &gateway,
            &(before.replies + after.replies).to_string(),
            &(before.requests + after.requests).to_string(),
            &prefix,
            &[&*gateway, &zone].concat(),
        ];
        findings.add(state, template, &words);
        let [unjoined, joined] = self.addresses;
        format!(
            ",\"proof\":{{\"verdict\":\"{}\",\"gateway\":\"{gateway}\",\"prefix\":\"{prefix}\",\
             \"before\":{},\"after\":{}}}",
            verdict.name(),
            json(unjoined, before),
            json(joined, after),
        )
    }
}

fn json(address: Ipv6Addr, heard: Heard) -> String {
    format!(
        "{{\"address\":\"{address}\",\"requests\":{},\"solicitations\":{},\"replies\":{}}}",
        heard.requests, heard.solicitations, heard.replies
    )
}
