//! The files of the package of the page.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::{APP, RESOURCES, scripts};
use crate::package::value;
use crate::router::{read, repository};

crate::tests![
    the_makefile_has_what_luci_builds_by,
    the_menu_leads_to_the_views_for_whom_the_acl_grants_it,
    the_acl_grants_nothing_that_nobody_calls,
    nothing_is_loaded_from_elsewhere,
    each_script_needs_what_there_is,
];

const MENU: &str = "root/usr/share/luci/menu.d/luci-app-mldproxy.json";
const ACL: &str = "root/usr/share/rpcd/acl.d/luci-app-mldproxy.json";

fn read_of_app(path: &str) -> String {
    read(&format!("{APP}/{path}"))
}

/// The text values of a key, anywhere in a file of JSON.
fn texts_of<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    let key = format!("\"{key}\": \"");
    let rests = text.split(&key).skip(1);
    rests.filter_map(|rest| rest.split('"').next()).collect()
}

fn the_makefile_has_what_luci_builds_by() {
    let makefile = read_of_app("Makefile");
    assert_eq!(value(&makefile, "PKG_VERSION"), env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&makefile, "PKG_LICENSE"), env!("CARGO_PKG_LICENSE"));
    assert_eq!(value(&makefile, "LUCI_DEPENDS"), "+luci-base +mldproxy");
    assert_eq!(value(&makefile, "LUCI_PKGARCH"), "all");
    let mut rest = &*makefile;
    for line in [
        "include $(TOPDIR)/rules.mk\n",
        "include $(TOPDIR)/feeds/luci/luci.mk\n",
        // The feed's index looks for packages by this text.
        "# call BuildPackage",
    ] {
        let (_, after) = rest.split_once(line).unwrap_or_else(|| panic!("{line}"));
        rest = after;
    }
}

fn the_menu_leads_to_the_views_for_whom_the_acl_grants_it() {
    for path in [MENU, ACL] {
        let file = repository(APP).join(path);
        let output = Command::new("python3")
            .args(["-m", "json.tool"])
            .arg(&file)
            .output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{path}: {said}");
    }
    let (menu, acl) = (read_of_app(MENU), read_of_app(ACL));
    let views = texts_of(&menu, "path");
    assert_eq!(views, ["mldproxy/status", "mldproxy/settings"]);
    for view in views {
        let script = repository(RESOURCES).join(format!("view/{view}.js"));
        assert!(script.is_file(), "{view}");
    }
    // The menu asks for the rights by the name of their group.
    let (_, rest) = menu.split_once("\"acl\": [ \"").unwrap();
    let (group, _) = rest.split_once('"').unwrap();
    assert!(
        acl.starts_with(&format!("{{\n\t\"{group}\": {{\n")),
        "{group}"
    );
}

fn the_acl_grants_nothing_that_nobody_calls() {
    let acl = read_of_app(ACL);
    let scripts: Vec<String> = scripts()
        .iter()
        .map(|(_, path)| fs::read_to_string(path).unwrap())
        .collect();
    let scripts = scripts.join("\n");
    // All of the texts in lists are methods, but for the name of the configuration.
    let lists = acl
        .split('[')
        .skip(1)
        .filter_map(|rest| rest.split(']').next());
    let methods: BTreeSet<&str> = lists
        .flat_map(|list| list.split(','))
        .map(|method| method.trim().trim_matches('"'))
        .filter(|method| *method != "mldproxy")
        .collect();
    assert!(methods.contains("prove"), "{methods:?}");
    for method in methods {
        let called = [
            format!("declare('{method}')"),
            format!("declareSlow('{method}')"),
            format!("method: '{method}'"),
        ];
        assert!(called.iter().any(|call| scripts.contains(call)), "{method}");
    }
}

fn nothing_is_loaded_from_elsewhere() {
    let styles = repository(RESOURCES).join("mldproxy/style.css");
    let files = scripts().into_iter().map(|(_, path)| path).chain([styles]);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        // The name of a namespace is an address that nobody loads.
        let text = text.replace("'http://www.w3.org/2000/svg'", "");
        for elsewhere in ["http:", "https:", " url(", "@import", "innerHTML"] {
            assert!(!text.contains(elsewhere), "{}: {elsewhere}", path.display());
        }
    }
}

fn each_script_needs_what_there_is() {
    let own: Vec<String> = scripts().into_iter().map(|(name, _)| name).collect();
    for (name, path) in scripts() {
        let text = fs::read_to_string(path).unwrap();
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("'require "))
        {
            let needed = line.trim_end_matches("';").split(' ').next().unwrap();
            let is_own = needed.starts_with("mldproxy.");
            assert!(
                !is_own || own.iter().any(|own| own == needed),
                "{name}: {needed}"
            );
            assert_ne!(needed, name);
        }
    }
}
