//! A model of procd, which follows the calls of the init script.

use std::collections::BTreeMap;
use std::{fs, mem};

/// procd's state of the service.
#[derive(Default)]
pub struct Procd {
    instances: BTreeMap<String, Instance>,
    triggers: Vec<Trigger>,
}

struct Trigger {
    event: String,
    network: String,
    command: Vec<String>,
}

impl Trigger {
    /// Whether an event matches. procd compares the part before the first `.*`, or all if there is
    /// none.
    fn matches(&self, event: &str) -> bool {
        match self.event.split_once(".*") {
            Some((start, _)) => event.starts_with(start),
            None => event == self.event,
        }
    }
}

struct Instance {
    /// The calls of the instance, without those that set its data and its files.
    parameters: Vec<Vec<String>>,
    /// The contents of the files that the parameter `file` names.
    files: Vec<Vec<u8>>,
    data: Vec<String>,
}

impl Instance {
    fn new(mut parameters: Vec<Vec<String>>) -> Self {
        let mut take = |name: &str| {
            let is = |call: &Vec<String>| call[1] == name;
            let place = parameters.iter().position(is);
            place.map_or_else(Vec::new, |place| parameters.remove(place).split_off(2))
        };
        let (data, files) = (take("data"), take("file"));
        let files = files.iter().map(|file| fs::read(file).unwrap_or_default());
        let files = files.collect();
        Instance {
            parameters,
            files,
            data,
        }
    }

    fn command(&self) -> &[String] {
        let mut calls = self.parameters.iter();
        let command = calls.find(|call| call[1] == "command");
        &command.expect("a command")[2..]
    }
}

impl Procd {
    /// Follows the calls. Returns "start NAME", "stop NAME" or "restart NAME" for each instance
    /// that procd starts, stops or restarts.
    pub fn follow(&mut self, calls: &[Vec<String>]) -> Vec<String> {
        let mut done = Vec::new();
        let mut instances = BTreeMap::new();
        let mut calls = calls.iter();
        while let Some(call) = calls.next() {
            match &*call.iter().map(String::as_str).collect::<Vec<_>>() {
                ["procd_open_service", ..] => self.triggers.clear(),
                ["procd_add_interface_trigger", event, network, command @ ..] => {
                    self.triggers.push(Trigger {
                        event: event.to_string(),
                        network: network.to_string(),
                        command: command.iter().map(ToString::to_string).collect(),
                    });
                }
                ["procd_open_instance", name] => {
                    let inside = calls.by_ref();
                    let inside = inside.take_while(|call| call[0] != "procd_close_instance");
                    let inside: Vec<_> = inside.cloned().collect();
                    // procd stops an instance with an error, and does not start it.
                    if !inside.iter().any(|call| call[1] == "error") {
                        instances.insert(name.to_string(), Instance::new(inside));
                    }
                }
                ["procd_close_service"] => done.extend(self.update(mem::take(&mut instances))),
                ["procd_kill", _] => done.extend(self.update(BTreeMap::new())),
                ["procd_kill", _, instance] => {
                    let stopped = self.instances.remove(*instance);
                    done.extend(stopped.map(|_| format!("stop {instance}")));
                }
                _ => {}
            }
        }
        done
    }

    /// Replaces the instances.
    fn update(&mut self, instances: BTreeMap<String, Instance>) -> Vec<String> {
        let before = mem::replace(&mut self.instances, instances);
        let mut done = Vec::new();
        for (name, before) in &before {
            match self.instances.get(name) {
                None => done.push(format!("stop {name}")),
                // procd does not restart an instance whose data changed.
                Some(after)
                    if after.parameters != before.parameters || after.files != before.files =>
                {
                    done.push(format!("restart {name}"));
                }
                Some(_) => {}
            }
        }
        for name in self.instances.keys() {
            if !before.contains_key(name) {
                done.push(format!("start {name}"));
            }
        }
        done
    }

    /// The command that procd runs for an event about a network; `None` if no trigger matches.
    pub fn command_for(&self, event: &str, network: &str) -> Option<Vec<String>> {
        let mut triggers = self.triggers.iter();
        let found = triggers.find(|trigger| trigger.matches(event) && trigger.network == network);
        found.map(|trigger| trigger.command.clone())
    }

    /// The answer to `ubus call service list`.
    pub fn list(&self) -> String {
        let instance = |(name, instance): (&String, &Instance)| {
            let pairs = instance.data.iter().map(|pair| {
                let (name, value) = pair.split_once('=').expect("a name and a value");
                format!("{name:?}: {value:?}")
            });
            let data = pairs.collect::<Vec<_>>().join(", ");
            let command = instance.command();
            format!(
                "{name:?}: {{ \"running\": true, \"command\": {command:?}, \
                 \"data\": {{ {data} }} }}"
            )
        };
        let instances: Vec<String> = self.instances.iter().map(instance).collect();
        let instances = instances.join(", ");
        format!("{{ \"mldproxy\": {{ \"instances\": {{ {instances} }} }} }}\n")
    }
}
