use std::io::Write as _;

use clap::error::ErrorKind;

use super::*;

fn parse_words(words: &str) -> Result<Cli, clap::Error> {
    parse(&words.split_whitespace().map(OsString::from).collect::<Vec<_>>())
}

fn node_of(words: &str) -> NodeArgs {
    match parse_words(words).unwrap().command {
        Command::Node(args) => *args,
        _ => panic!("asked for a node"),
    }
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

const NODE: &str = "leaderboard node --id 2 --data-dir d --peers 1=a:1,2=b:2";

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_node_needs_its_id_its_directory_and_its_peers() {
    let args = node_of(NODE);
    assert_eq!((args.id.get(), args.peers.len()), (2, 2));
    assert_eq!(args.http, "127.0.0.1:8081");
    for missing in ["--id 2", "--data-dir d", "--peers 1=a:1,2=b:2"] {
        let error = parse_words(&NODE.replace(missing, "")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument, "{missing}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn wrong_values_are_bad_usage() {
    for wrong in [
        "--id 0",
        "--id one",
        "--peers 1:a",
        "--peers 1=a",
        "--http 8081",
        "--election-timeout 300",
        "--election-timeout 0ms",
        "--connections-max 0",
        "--advertise here",
        "--advertise-http a b:1",
        "--snapshot-after-bytes 0",
        "--trailing-bytes-max 1MB",
        "--log-format xml",
        "--log =/=",
        "--insecure-peers=maybe",
        "--no-such-flag",
    ] {
        let flag = wrong.split(' ').next().unwrap();
        let others: String = NODE
            .split(" --")
            .filter(|part| !flag.ends_with(part.split(' ').next().unwrap()))
            .collect::<Vec<_>>()
            .join(" --");
        let error = parse_words(&format!("{others} {wrong}")).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong}: {error}");
    }
}

#[test]
fn a_configuration_file_gives_defaults_and_flags_win() {
    let file = file(
        r#"
        log-format = "json"
        [node]
        id = 2
        data_dir = "from file"
        peers = { 1 = "a:1", 2 = "b:2" }
        http-peers = ["1=a:3"]
        election-timeout = "900ms"
        tls-ca = "ca.pem"
        tls_cert = "n2.pem"
        insecure-peers = true
        [balancer]
        nodes = ["a:3"]
        "#,
    );
    let path = file.path().display();
    let cli = parse_words(&format!("leaderboard node --config {path} --http 0.0.0.0:99")).unwrap();
    assert_eq!(cli.common.log_format, LogFormat::Json);
    let Command::Node(args) = cli.command else { panic!("asked for a node") };
    assert_eq!(args.id.get(), 2);
    assert_eq!(args.data_dir, PathBuf::from("from file"));
    assert_eq!(args.peers.len(), 2);
    assert_eq!(args.http_peers.len(), 1);
    assert_eq!(args.http, "0.0.0.0:99");
    assert_eq!(args.tls_ca, Some("ca.pem".into()));
    assert_eq!((args.tls_cert, args.tls_key), (Some("n2.pem".into()), None));
    assert!(args.insecure_peers);
    assert_eq!(args.election_timeout.as_millis(), 900);
    let args = node_of(&format!("leaderboard --config {path} node --id 1 --election-timeout 1s"));
    assert_eq!((args.id.get(), args.election_timeout.as_millis()), (1, 1000));
    let cli = parse_words(&format!("leaderboard balancer --config={path}")).unwrap();
    assert!(matches!(cli.command, Command::Balancer(_)));
    let cli = parse_words(&format!("leaderboard log dump d --config {path}")).unwrap();
    assert_eq!(cli.common.log_format, LogFormat::Json);
    assert!(matches!(cli.command, Command::Log(_)));
}

#[test]
fn a_node_that_joins_says_so_on_the_command_line_or_in_the_file() {
    let args = node_of("leaderboard node --id 4 --join --data-dir d --peers 1=a:1 --advertise b:4");
    assert!(args.join && args.advertise.as_deref() == Some("b:4"));
    assert_eq!((args.snapshot_after_bytes, args.trailing_bytes_max), (64 << 20, 16 << 20));
    assert!(!node_of(NODE).join);
    let file = file(
        r#"
        [node]
        id = 4
        data-dir = "d"
        join = true
        peers = ["1=a:1"]
        advertise-http = "b:5"
        snapshot-after-bytes = "2MiB"
        trailing-bytes-max = 65536
        "#,
    );
    let words = format!("leaderboard node --config {}", file.path().display());
    let args = node_of(&words);
    assert!(args.join && args.advertise_http.as_deref() == Some("b:5"));
    assert_eq!((args.snapshot_after_bytes, args.trailing_bytes_max), (2 << 20, 65536));
    let args = node_of(&format!("{words} --snapshot-after-bytes 3KiB"));
    assert_eq!(args.snapshot_after_bytes, 3 << 10);
}

#[test]
fn operators_say_what_they_want_and_where() {
    for words in [
        "status",
        "status --watch -o json --endpoints a:1,b:2",
        "members list -o json",
        "members --endpoints a:1 list",
        "members add 4 a:1 b:2 --learner --endpoints a:1",
        "members promote 4 --timeout 60s",
        "members remove 4",
        "transfer",
        "transfer 2",
        "snapshot --endpoints a:1",
    ] {
        let parsed = parse_words(&format!("leaderboard {words}"));
        assert!(parsed.is_ok(), "{words}: {}", parsed.unwrap_err());
    }
    for wrong in [
        "members",
        "members add 4",
        "members add 0 a:1 b:2",
        "members add 4 a b:2",
        "members promote four",
        "members remove",
        "transfer 0",
        "status --endpoints http://a:1",
        "status --timeout 61s",
        "snapshot --timeout 0s",
    ] {
        let error = parse_words(&format!("leaderboard {wrong}")).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong}: {error}");
    }
    let file = file("[members]\nendpoints = ['a:1', 'b:2']\ntimeout = '1s'\n");
    let path = file.path().display();
    let cli = parse_words(&format!("leaderboard members list --config {path}")).unwrap();
    let Command::Members(args) = cli.command else { panic!("asked for members") };
    assert!(format!("{args:?}").contains("timeout: 1s"), "{args:?}");
    for words in ["status", "members list", "members add", "members remove", "transfer", "snapshot"]
    {
        let help = parse_words(&format!("leaderboard {words} --help")).unwrap_err().to_string();
        assert!(help.contains("Example") && help.contains("--endpoints"), "{words}: {help}");
    }
}

#[test]
fn a_wrong_configuration_file_is_bad_usage_and_named() {
    for content in [
        "[node]\nidd = 1",
        "nodes = 3",
        "[no-such-command]\nid = 1",
        "[node]\nid = 1.5",
        "[node]\nid = 'zero'",
        "[node]\nconfig = 'other'",
        "not toml",
    ] {
        let file = file(content);
        let path = file.path().display();
        let error = parse_words(&format!("{NODE} --config {path}").replace("--id 2 ", ""));
        let error = error.unwrap_err();
        assert_eq!(error.exit_code(), 2, "{content}: {error}");
    }
    let error = parse_words(&format!("{NODE} --config /no/such/file")).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("/no/such/file"), "{error}");
}

#[test]
fn help_is_help_even_beside_a_configuration_file() {
    let error = parse_words("leaderboard node --help").unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0));
    let help = error.to_string();
    for shown in ["LEADERBOARD_DATA_DIR", "[default: 300ms]", "--peers <ID=HOST:PORT,…>"] {
        assert!(help.contains(shown), "{shown} is not in\n{help}");
    }
    assert!(!help.contains("exit-with-stdin"));
}
