//! The page in a real browser, served by real processes: three nodes and a balancer, of which some
//! are killed with SIGKILL while somebody looks at it.
//!
//! Needs Chromium and its chromedriver. Where they are missing the tests say so and are skipped;
//! `LEADERBOARD_NO_SKIP=1` makes that a failure. Pictures of the page and the logs of the
//! processes are left in `browser/` below the directory that Cargo keeps for tests,
//! `target/tmp`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use browser::chrome::{Chrome, Programs};
use browser::page::Page;
use real::Result;
use real::cluster::{Cluster, RUN_LEADERBOARD};

mod browser {
    pub(crate) mod chrome;
    pub(crate) mod page;
}

mod real;

/// Runs the tests; or, when a test has started this program again, a node or a balancer.
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == RUN_LEADERBOARD) {
        return leaderboard_app::cli::run_from(
            std::iter::once("leaderboard".into()).chain(arguments),
        );
    }
    let programs = Programs::find();
    let required = std::env::var_os("LEADERBOARD_NO_SKIP").is_some_and(|set| set == "1");
    let skipped = match &programs {
        Err(missing) if !required => {
            eprintln!("browser tests skipped: {missing} (LEADERBOARD_NO_SKIP=1 forbids it)");
            true
        }
        _ => false,
    };
    let trial = |name: &'static str, test: Test| {
        let programs = programs.clone();
        Trial::test(name, move || run(name, &programs?, test)).with_ignored_flag(skipped)
    };
    let trials = vec![
        trial("a_score_outlives_the_leader", |page, cluster| {
            Box::pin(a_score_outlives_the_leader(page, cluster))
        }),
        trial("a_score_waits_for_a_majority", |page, cluster| {
            Box::pin(a_score_waits_for_a_majority(page, cluster))
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Test = for<'a> fn(
    &'a Page,
    &'a mut Cluster,
) -> std::pin::Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Gives a test its own cluster, its own browser, and a directory for what it leaves behind.
fn run(name: &str, programs: &Programs, test: Test) -> Result<(), Failed> {
    let keep = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("browser").join(name);
    let _ = std::fs::remove_dir_all(&keep);
    std::fs::create_dir_all(&keep)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(in_chrome(&keep, programs, test))
        .map_err(|error| format!("{error}\nPictures and logs are in {}", keep.display()).into())
}

async fn in_chrome(keep: &Path, programs: &Programs, test: Test) -> Result<()> {
    let mut cluster = Cluster::start(keep).await?;
    let chrome = Chrome::start(programs, keep).await?;
    let page = Page::new(chrome.client(), keep);
    let done = test(&page, &mut cluster).await;
    if done.is_err() {
        // The picture says more than the error; if there is none, the error has to do.
        let _ = page.picture("failed").await;
    }
    let quiet = page.said_nothing_wrong().await;
    chrome.stop().await?;
    done.and(quiet)
}

/// Somebody adds scores and looks on while the leader is killed and comes back.
async fn a_score_outlives_the_leader(page: &Page, cluster: &mut Cluster) -> Result<()> {
    page.open(&cluster.url()).await?;
    page.see("#status[data-state=live]").await?;
    page.see("#empty:not([hidden])").await?;
    for id in cluster.ids() {
        page.see(&format!("[data-node='{id}']:not([data-state=down])")).await?;
    }
    page.pictures("empty").await?;

    page.add("alice", "10").await?;
    page.see("#receipt[data-state=committed][data-player=alice][data-total='10']").await?;
    page.see("#rows > [data-player=alice][data-rank='1'][data-score='10']").await?;
    let hostile = "<img src=x onerror=alert(1)>\u{202e}";
    page.add(hostile, "3").await?;
    page.see("#rows > [data-rank='2'][data-score='3']").await?;
    page.see_players(&["alice", hostile]).await?;
    page.find("alice").await?;
    page.see("#found[data-rank='1']").await?;
    page.pictures("live").await?;

    let leader = page.attribute("[data-node][data-state=leader]", "data-node").await?.parse()?;
    cluster.kill(leader).await?;
    page.see(&format!("[data-node='{leader}'][data-state=down]")).await?;
    page.see(&format!("[data-state=leader]:not([data-node='{leader}'])")).await?;
    page.see("#status[data-state=live][data-partial]").await?;
    page.add("alice", "5").await?;
    page.see("#receipt[data-state=committed][data-total='15']").await?;
    page.see("#rows > [data-player=alice][data-score='15']").await?;
    page.pictures("one-down").await?;

    cluster.restart(leader)?;
    let back = format!("[data-node='{leader}']:is([data-state=follower], [data-state=leader])");
    page.see(&back).await?;
    page.see("#status[data-state=live]:not([data-partial])").await?;
    page.see("#digest[data-state=same]").await?;
    page.see("#disputes[hidden]").await?;

    // The node that was killed serves the page too, without a balancer in front of it.
    page.open(&cluster.url_of(leader)).await?;
    page.see("#rows > [data-player=alice][data-rank='1'][data-score='15']").await?;
    page.see(&back).await?;
    page.see("[data-node][data-state=seen]").await?;
    page.pictures("one-node").await
}

/// A score that no majority can take is shown as waiting, survives a reload of the page, and counts
/// once when the majority is back.
async fn a_score_waits_for_a_majority(page: &Page, cluster: &mut Cluster) -> Result<()> {
    page.open(&cluster.url()).await?;
    page.add("bob", "1").await?;
    page.see("#receipt[data-state=committed][data-total='1']").await?;
    page.see("#rows > [data-player=bob][data-score='1']").await?;

    for id in [1, 2] {
        cluster.kill(id).await?;
        page.see(&format!("[data-node='{id}'][data-state=down]")).await?;
    }
    page.add("bob", "4").await?;
    page.see("#receipt[data-state=pending]").await?;
    page.see("#rows > [data-player=bob][data-pending][data-score='1']").await?;
    page.see("#status[data-state=no-leader]").await?;
    page.see("#banner:not([hidden])").await?;
    page.pictures("waiting").await?;
    page.reload().await?;
    page.see("#receipt[data-state=pending][data-player=bob]").await?;

    cluster.restart(1)?;
    page.see("#receipt[data-state=committed][data-total='5']").await?;
    page.see("#rows > [data-player=bob][data-score='5']:not([data-pending])").await?;
    page.see("#status[data-state=live]").await?;
    page.see("[data-node][data-state=leader]").await?;
    page.pictures("majority").await
}
