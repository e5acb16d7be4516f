// The daemon's modules, which no other crate can name. Their own tests are not compiled, but leave imports behind.
#[path = "../../src/daemon/event_loop/mod.rs"]
#[allow(dead_code, unused_imports)]
mod event_loop;
#[path = "../../src/daemon/interfaces.rs"]
#[allow(dead_code, unused_imports)]
mod interfaces;
#[path = "../../src/daemon/output.rs"]
#[allow(dead_code, unused_imports)]
mod output;
#[path = "../../src/daemon/proxy_settings.rs"]
#[allow(dead_code, unused_imports)]
mod proxy_settings;
#[path = "../../src/daemon/report.rs"]
#[allow(dead_code, unused_imports)]
mod report;
#[path = "../../src/daemon/shared_prefixes.rs"]
#[allow(dead_code, unused_imports)]
mod shared_prefixes;
#[path = "../../src/daemon/status/mod.rs"]
#[allow(dead_code, unused_imports)]
mod status;
#[path = "../../src/daemon/sys/mod.rs"]
#[allow(dead_code, unused_imports)]
mod sys;
#[path = "../../src/daemon/values.rs"]
#[allow(dead_code, unused_imports)]
mod values;

pub mod bodies;
