//! Chromium, driven by WebDriver (W3C): only what the tests need of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::harness::{http, until};

/// The member that an element has in JSON (WebDriver, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const MISSING: &str = "the tests of the pages need Chromium and its driver: install them with \
    `apt-get install --no-install-recommends chromium chromium-driver`, or run scripts/test";

/// A browser without a window, with a profile of its own. It ends with the test.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    pub async fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{error}: {MISSING}"));
        let mut lines = BufReader::new(driver.stdout.take().expect("it is piped")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        let port = port.unwrap_or_else(|| panic!("the driver says no port: {MISSING}"));
        // Nobody would read what it says, and it would wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self { driver, port, session: String::new() };
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-proxy-server"],
        });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let begun = browser
            .call("POST", "/session", Some(json!({ "capabilities": { "alwaysMatch": wanted } })))
            .await;
        let id = begun["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {begun}; {MISSING}"));
        browser.session = format!("/session/{id}");
        browser
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = match (method, body) {
            ("POST", body) => http()
                .post(url)
                .header("content-type", "application/json")
                .body(body.unwrap_or_else(|| json!({})).to_string()),
            _ => http().get(url),
        };
        let answer = request.timeout(Duration::from_secs(60)).send().await.expect("the driver answers");
        let text = answer.text().await.expect("a whole answer");
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        answer["value"].take()
    }

    async fn command(&self, path: &str, body: Value) -> Value {
        self.call("POST", &format!("{}{path}", self.session), Some(body)).await
    }

    async fn ask(&self, path: &str) -> Value {
        self.call("GET", &format!("{}{path}", self.session), None).await
    }

    pub async fn open(&self, url: &str) {
        self.command("/url", json!({ "url": url })).await;
    }

    /// The path of the page, with its query.
    pub async fn path(&self) -> String {
        let url = self.ask("/url").await;
        let url = url.as_str().unwrap_or_default().to_owned();
        url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default()
    }

    /// What a person reads.
    pub async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// Runs a script in the page, as somebody at the console could.
    pub async fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Waits for the text.
    pub async fn reads(&self, text: &str) {
        until(&format!("a page with {text:?}"), || async {
            let read = self.text().await;
            if read.contains(text) { Ok(()) } else { Err(format!("{}: {read}", self.path().await)) }
        })
        .await;
    }

    async fn element(&self, selector: &str) -> String {
        until(&format!("an element {selector}"), || async {
            let found = self.command("/element", json!({ "using": "css selector", "value": selector })).await;
            found[ELEMENT].as_str().map(str::to_owned).ok_or_else(|| format!("{found}"))
        })
        .await
    }

    /// Does something with an element. A live page may have replaced it since it was found: then with the one in its place.
    async fn act(&self, selector: &str, action: &str, arguments: Value) {
        until(&format!("{action} of {selector}"), || async {
            let element = self.element(selector).await;
            let done = self.command(&format!("/element/{element}/{action}"), arguments.clone()).await;
            if done["error"] == "stale element reference" {
                return Err(done.to_string());
            }
            assert!(done.is_null(), "{selector}: {done}");
            Ok(())
        })
        .await;
    }

    pub async fn click(&self, selector: &str) {
        self.act(selector, "click", json!({})).await;
    }

    /// Presses the key on an element, as somebody does who has no mouse.
    pub async fn press_enter(&self, selector: &str) {
        self.type_into(selector, "\u{e007}").await;
    }

    /// Types into a field.
    pub async fn type_into(&self, selector: &str, text: &str) {
        self.act(selector, "value", json!({ "text": text })).await;
    }

    /// Asks something of the browser itself (Chrome `DevTools` Protocol).
    async fn devtools(&self, cmd: &str, params: Value) {
        let answer = self.command("/goog/cdp/execute", json!({ "cmd": cmd, "params": params })).await;
        assert!(answer["error"].is_null(), "{cmd}: {answer}");
    }

    /// Pages are shown as to somebody who wants `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// From the next page on, no script of a page runs.
    pub async fn without_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    }

    /// What the browser has complained of since the last call.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.command("/se/log", json!({ "type": "browser" })).await;
        let lines = log.as_array().into_iter().flatten();
        // What is said more quietly is advice.
        let lines = lines.filter(|line| line["level"] == "SEVERE" || line["level"] == "WARNING");
        lines.filter_map(|line| line["message"].as_str()).map(str::to_owned).collect()
    }

    /// Stores a picture of the whole page at this width. Returns true if nothing is wider than the window.
    pub async fn picture(&self, width: u32, file: &Path) -> bool {
        self.command("/window/rect", json!({ "width": width, "height": 900 })).await;
        let height = self.run("return document.documentElement.scrollHeight").await.as_u64().unwrap_or(900);
        self.command("/window/rect", json!({ "width": width, "height": (height + 160).min(3000) })).await;
        let fits = self.run("return document.documentElement.scrollWidth <= window.innerWidth").await;
        let picture = self.ask("/screenshot").await;
        let picture = BASE64_STANDARD.decode(picture.as_str().expect("a picture")).expect("it is in base64");
        std::fs::write(file, picture).expect("it can be written");
        fits == json!(true)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser with the session; a driver that is killed would leave it.
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let request = format!(
                "DELETE {} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n\r\n",
                self.session, self.port
            );
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read(&mut [0; 1024]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
