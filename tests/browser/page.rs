//! What a person does on the page, and what they see. The names of its elements are those that
//! `leaderboard-app/page/app.js` promises.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, Locator};
use http::Method;
use serde_json::{Value, json};
use url::{ParseError, Url};

use crate::real::Result;

/// How long anything may take to be seen. Far more than needed: only a failure waits so long.
const SEE_TIMEOUT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(50);

/// Width and height in pixels, and whether the person likes it dark.
const LOOKS: [(&str, u32, u32, &str); 4] = [
    ("phone-light", 360, 780, "light"),
    ("phone-dark", 360, 780, "dark"),
    ("desktop-light", 1280, 900, "light"),
    ("desktop-dark", 1280, 900, "dark"),
];

/// The page in a browser.
pub(crate) struct Page {
    client: Client,
    /// Where pictures go.
    keep: PathBuf,
}

impl Page {
    pub(crate) fn new(client: Client, keep: &Path) -> Self {
        Self { client, keep: keep.to_owned() }
    }

    pub(crate) async fn open(&self, url: &str) -> Result<()> {
        Ok(self.client.goto(url).await?)
    }

    pub(crate) async fn reload(&self) -> Result<()> {
        Ok(self.client.refresh().await?)
    }

    /// Waits until an element like this is on the page.
    pub(crate) async fn see(&self, css: &str) -> Result<()> {
        let waiting = self.client.wait().at_most(SEE_TIMEOUT).every(POLL);
        match waiting.for_element(Locator::Css(css)).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let instead = self.states().await;
                Err(format!("never saw {css}: {error}; instead there was {instead}").into())
            }
        }
    }

    /// What the page says in its attributes, for an error.
    async fn states(&self) -> String {
        let states = "return [...document.querySelectorAll('[data-state]')]\
                      .map((element) => element.cloneNode(false).outerHTML).join('\\n')";
        match self.client.execute(states, Vec::new()).await {
            Ok(Value::String(states)) => states,
            other => format!("{other:?}"),
        }
    }

    /// The attribute of an element that comes to be there and has it.
    pub(crate) async fn attribute(&self, css: &str, name: &str) -> Result<String> {
        self.see(css).await?;
        let value = self.client.find(Locator::Css(css)).await?.attr(name).await?;
        Ok(value.ok_or_else(|| format!("{css} has no {name}"))?)
    }

    /// Fails unless these are the players of the ranking, best first, their names shown as they are.
    pub(crate) async fn see_players(&self, expected: &[&str]) -> Result<()> {
        let rows = "return [...document.querySelectorAll('#rows > [data-player]')]\
                    .map((row) => row.querySelector('.name').textContent)";
        let players = self.client.execute(rows, Vec::new()).await?;
        if players == json!(expected) {
            return Ok(());
        }
        Err(format!("the players are {players}, not {expected:?}").into())
    }

    /// Fills in the form and sends it.
    pub(crate) async fn add(&self, player: &str, points: &str) -> Result<()> {
        self.fill("#player", player).await?;
        self.fill("#score", points).await?;
        Ok(self.client.find(Locator::Css("#submit")).await?.click().await?)
    }

    /// Asks for the rank of a player.
    pub(crate) async fn find(&self, player: &str) -> Result<()> {
        self.fill("#find-player", player).await?;
        Ok(self.client.find(Locator::Css("#find button")).await?.click().await?)
    }

    async fn fill(&self, css: &str, text: &str) -> Result<()> {
        let field = self.client.find(Locator::Css(css)).await?;
        field.clear().await?;
        Ok(field.send_keys(text).await?)
    }

    /// Takes a picture of the page in each look; none of them may be wider than the screen.
    pub(crate) async fn pictures(&self, name: &str) -> Result<()> {
        for (look, width, height, scheme) in LOOKS {
            let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1,
                                  "mobile": false });
            self.devtools("Emulation.setDeviceMetricsOverride", metrics).await?;
            let media =
                json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            self.devtools("Emulation.setEmulatedMedia", media).await?;
            self.picture(&format!("{name}-{look}")).await?;
            let overhang = "const page = document.documentElement; \
                            return page.scrollWidth - page.clientWidth";
            let overhang = self.client.execute(overhang, Vec::new()).await?;
            if overhang != json!(0) {
                return Err(format!("{name}-{look} is {overhang} pixels too wide").into());
            }
        }
        Ok(())
    }

    pub(crate) async fn picture(&self, name: &str) -> Result<()> {
        let picture = self.client.screenshot().await?;
        Ok(std::fs::write(self.keep.join(format!("{name}.png")), picture)?)
    }

    /// Fails if the browser has complained about a script or about the security policy. That
    /// requests fail is what these tests are about, so the network may be complained about.
    pub(crate) async fn said_nothing_wrong(&self) -> Result<()> {
        let command = Post { path: "se/log", body: json!({ "type": "browser" }) };
        let log = self.client.issue_cmd(command).await?;
        let complaints = log.as_array().ok_or("the log of the browser is no list")?.iter();
        let wrong: Vec<String> = complaints
            .filter(|entry| entry["source"] != "network")
            .map(ToString::to_string)
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Result<()> {
        let body = json!({ "cmd": command, "params": parameters });
        self.client.issue_cmd(Post { path: "goog/cdp/execute", body }).await?;
        Ok(())
    }
}

/// A command of chromedriver that WebDriver does not know.
#[derive(Debug)]
struct Post {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Post {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
