//! A page that runs in Chromium, without a display and in virtual time: a view of the app on the
//! stub of LuCI, and a check of what it shows.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{RESOURCES, recordings, scripts};
use crate::lab::find_tool;
use crate::router::{read, repository};

/// The browser, with Debian's package of it.
pub const CHROMIUM: (&str, &str) = ("chromium", "chromium");

/// The seconds of the page's own time in which it has to be done.
const VIRTUAL_TIME: Duration = Duration::from_secs(25);

/// What a page shows, and how.
pub struct Page<'p> {
    /// The name of the picture in target/luci.
    pub name: &'p str,
    /// `view.mldproxy.status` or `view.mldproxy.settings`.
    pub view: &'p str,
    /// The function in checks.js.
    pub check: &'p str,
    /// The answers as one object of JSON: by `OBJECT.METHOD`, and by the argument or `""`.
    pub answers: String,
    /// /etc/config/mldproxy.
    pub config: String,
    /// Whether rpcd has the plugin.
    pub has_plugin: bool,
    pub may_write: bool,
    /// Translations as an object of JSON.
    pub translations: String,
    /// A text that checks.js expects in the page.
    pub host_name: &'p str,
}

/// The sizes of a window: that of a desktop, and that of a small phone.
pub const WIDE: (u32, u32) = (1280, 1500);
pub const NARROW: (u32, u32) = (360, 3000);

/// A text as JSON that may stand in a script of a page.
pub fn json(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '<' | '\u{2028}' | '\u{2029}' | '\0'..' ' => {
                write!(quoted, "\\u{:04x}", u32::from(character)).unwrap();
            }
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

impl Page<'_> {
    /// Shows the page, and leaves a picture of it in target/luci.
    ///
    /// # Panics
    /// With everything that the page complains of, the console's errors included.
    ///
    /// Returns the lines that it reports.
    #[track_caller]
    pub fn show(&self, (width, height): (u32, u32), dark: bool) -> Vec<String> {
        let folder = repository("target/luci");
        let theme = if dark { "dark" } else { "light" };
        let name = format!("{}-{theme}-{width}", self.name);
        let profile = folder.join(format!("profile-{name}"));
        fs::create_dir_all(&profile).unwrap();
        let page = folder.join(format!("{name}.html"));
        fs::write(&page, self.around(width, height, dark)).unwrap();
        let output = Command::new(find_tool(CHROMIUM.0).expect("the test needs it"))
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("--window-size={width},{height}"))
            .arg(format!(
                "--virtual-time-budget={}",
                VIRTUAL_TIME.as_millis()
            ))
            .arg(format!("--screenshot={}/{name}.png", folder.display()))
            .arg("--dump-dom")
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        fs::remove_dir_all(profile).unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        let result = shown
            .split_once("<pre id=\"result\" hidden=\"\">")
            .and_then(|(_, rest)| rest.split_once("</pre>"));
        let (result, _) = result.unwrap_or_else(|| {
            panic!("no page: {}", String::from_utf8_lossy(&output.stderr));
        });
        let result = result
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        let mut lines: Vec<String> = result.lines().map(str::to_owned).collect();
        assert_eq!(lines.pop().as_deref(), Some("end"), "{name}: {result}");
        let wrong: Vec<&String> = lines
            .iter()
            .filter(|line| line.starts_with("error"))
            .collect();
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
        lines
    }

    /// The page around the page: a window of Chromium has at least 500 pixels, a frame in it has not.
    fn around(&self, width: u32, height: u32, dark: bool) -> String {
        let inside = self
            .inside(dark)
            .replace('&', "&amp;")
            .replace('"', "&quot;");
        format!(
            "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<body style=\"margin:0\">\n\
             <iframe width=\"{width}\" height=\"{height}\" style=\"border:0\" srcdoc=\"{inside}\">\
             </iframe>\n<pre id=\"result\" hidden></pre>\n"
        )
    }

    fn inside(&self, dark: bool) -> String {
        let sources: Vec<String> = scripts()
            .iter()
            .map(|(name, path)| {
                format!(
                    "{}:{}",
                    json(name),
                    json(&fs::read_to_string(path).unwrap())
                )
            })
            .collect();
        let acl = "root/usr/share/rpcd/acl.d/luci-app-mldproxy.json";
        let recorded = format!(
            "const RECORDED = {{ sources: {{{}}}, resources: {}, acl: JSON.parse({}), methods: {}, \
             answers: {}, config: {}, mayWrite: {}, translations: {}, hostName: {} }};",
            sources.join(","),
            json(&format!("file://{}", repository(RESOURCES).display())),
            json(&read(&format!("{}/{acl}", super::APP))),
            if self.has_plugin {
                &recordings::METHODS
            } else {
                "null"
            },
            self.answers,
            json(&self.config),
            self.may_write,
            self.translations,
            json(self.host_name),
        );
        let own = repository("tests/openwrt/luci");
        let url = |file: &str| format!("file://{}", PathBuf::from(&own).join(file).display());
        format!(
            "<!DOCTYPE html><html data-darkmode=\"{dark}\"><meta charset=\"utf-8\">\
             <link rel=\"stylesheet\" href=\"{}\"><body><div id=\"view\"></div>\
             <script data-own>{recorded}</script><script data-own src=\"{}\"></script>\
             <script data-own src=\"{}\"></script>\
             <script data-own>show({}, {});</script></body></html>",
            url("theme.css"),
            url("stub.js"),
            url("checks.js"),
            json(self.view),
            json(self.check),
        )
    }
}
