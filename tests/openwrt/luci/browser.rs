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

/// Two frames side by side, each with its width in pixels and whether its theme is dark: a desktop
/// and a small phone.
pub type Frames = [(u32, bool); 2];
pub const FRAMES: Frames = [(1280, false), (360, true)];
pub const OTHER_FRAMES: Frames = [(1280, true), (360, false)];

/// The height of the picture. What is below is not in it.
const HEIGHT: u32 = 2000;

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
    /// Shows the page in both frames, and leaves a picture of them in target/luci. Returns the lines
    /// that each reports.
    ///
    /// # Panics
    /// With everything that the page complains of, the console's errors included.
    #[track_caller]
    pub fn show(&self, frames: Frames) -> [Vec<String>; 2] {
        let folder = repository("target/luci");
        let profile = folder.join(format!("profile-{}", self.name));
        fs::create_dir_all(&profile).unwrap();
        let page = folder.join(format!("{}.html", self.name));
        fs::write(&page, self.around(frames)).unwrap();
        let width: u32 = frames.iter().map(|(width, _)| width).sum();
        let output = Command::new(find_tool(CHROMIUM.0).expect("the test needs it"))
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--dump-dom",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("--window-size={width},{HEIGHT}"))
            .arg(format!(
                "--virtual-time-budget={}",
                VIRTUAL_TIME.as_millis()
            ))
            .arg(format!(
                "--screenshot={}/{}.png",
                folder.display(),
                self.name
            ))
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        fs::remove_dir_all(profile).unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        frames.map(|(width, _)| {
            let result = shown
                .split_once(&format!("<pre id=\"result-{width}\" hidden=\"\">"))
                .and_then(|(_, rest)| rest.split_once("</pre>"));
            let (result, _) = result.unwrap_or_else(|| {
                panic!("no page: {}", String::from_utf8_lossy(&output.stderr));
            });
            self.lines_of(width, result)
        })
    }

    /// The lines of a frame, none of which may be an error.
    #[track_caller]
    fn lines_of(&self, width: u32, result: &str) -> Vec<String> {
        let result = result
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        let mut lines: Vec<String> = result.lines().map(str::to_owned).collect();
        let last = lines.pop();
        assert_eq!(last.as_deref(), Some("end"), "{}: {result}", self.name);
        let wrong = lines.iter().filter(|line| line.starts_with("error"));
        let wrong: Vec<&String> = wrong.collect();
        assert!(wrong.is_empty(), "{}, {width}: {wrong:#?}", self.name);
        lines
    }

    /// The page around the frames. A window of Chromium has at least 500 pixels, a frame has not.
    fn around(&self, frames: Frames) -> String {
        let mut page = "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n\
                        <body style=\"margin:0;display:flex\">\n"
            .to_owned();
        for (width, dark) in frames {
            let inside = self.inside(width, dark).replace('&', "&amp;");
            let inside = inside.replace('"', "&quot;");
            write!(
                page,
                "<pre id=\"result-{width}\" hidden></pre>\n<iframe width=\"{width}\" \
                 height=\"{HEIGHT}\" style=\"border:0\" srcdoc=\"{inside}\"></iframe>\n"
            )
            .unwrap();
        }
        page
    }

    fn inside(&self, width: u32, dark: bool) -> String {
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
             answers: {}, config: {}, mayWrite: {}, translations: {}, hostName: {}, \
             result: 'result-{width}' }};",
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
