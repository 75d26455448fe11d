//! bot-detection: refuses clients whose User-Agent is a known bot's.
//!
//! `allow` goes before `deny`, and both before the built-in list. The list is our own choice of crawlers,
//! scrapers and checkers that say who they are; clients that lie about it are nothing this plugin can tell.
//! A request without User-Agent passes, as in Kong.

use crate::BuildError;
use crate::contract::{Definition, LocalResponse, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::Exchange;
use crate::native::settings;
use gateward_http::Name;
use gateward_model::schema::{Field, Rule, Schema};
use regex::bytes::{RegexSet, RegexSetBuilder};
use serde::Deserialize;
use std::sync::LazyLock;

const USER_AGENT: Name<'static> = Name::new("User-Agent");

/// Patterns of the built-in list, matched without case.
const BOTS: &[&str] = &[
    // Search engines.
    r"\b(google|bing|yandex|baidu|duckduck|sogou|petal|seznam|apple|exa|coccoc|qwant|mojeek|yahoo|msn|naver|daum)[a-z-]*(bot|spider|bots)\b",
    r"\bgooglebot|\bgoogle-(inspectiontool|extended|read-aloud)|\bgoogleother|\bmediapartners-google|\badsbot-google",
    r"\bbingpreview|\bslurp\b|\bbaiduspider|\byeti/|\bia_archiver|\barchive\.org_bot|\bccbot\b|\bheritrix",
    r"\b360spider|\byisouspider|\btoutiaospider|\bbytespider|\bteoma|\bgigabot|\bpsbot\b|\bcliqzbot",
    // Link previews and social networks.
    r"\bfacebookexternalhit|\bfacebot|\bmeta-external(agent|fetcher)|\btwitterbot|\blinkedinbot|\bpinterest(bot)?/",
    r"\bslackbot|\bslack-imgproxy|\btelegrambot|\bdiscordbot|\bwhatsapp/|\bredditbot|\bembedly|\btumblr/|\bvkshare",
    // Language model crawlers.
    r"\bgptbot|\bchatgpt-user|\boai-searchbot|\bclaudebot|\bclaude-web|\banthropic-ai|\bperplexitybot|\bcohere-ai",
    r"\bamazonbot|\bdiffbot|\bomgili(bot)?\b|\byoubot|\bai2bot|\bimagesiftbot|\btimpibot",
    // Marketing and link analysis.
    r"\bahrefs(bot|siteaudit)|\bsemrushbot|\bmj12bot|\bdotbot|\brogerbot|\bblexbot|\bmegaindex|\bdataforseobot",
    r"\bserpstatbot|\bsistrix|\bseokicks|\bbarkrowler|\blinkdexbot|\bzoominfobot|\bscreaming frog|\bawario",
    // Monitors and feed readers that crawl.
    r"\bpingdom|\buptimerobot|\bstatuscake|\bsite24x7|\bgtmetrix|\bchrome-lighthouse|\bfeedfetcher|\bfeedburner",
    // Scanners and scraping frameworks.
    r"\bscrapy\b|\bnutch\b|\bcrawler4j|\bhttrack|\bwebzip|\bwebcopier|\bwebreaper|\bteleport pro|\bsitesucker",
    r"\bnikto\b|\bsqlmap\b|\bmasscan|\bzgrab|\bnuclei\b|\bwpscan|\bdirbuster|\bgobuster|\bcensysinspect|\bnessus",
    r"\blarbin|\bemailcollector|\bemailsiphon|\bemailwolf|\bextractorpro|\bheadlesschrome|\bphantomjs",
    // What says of itself that it is one.
    r"\b[a-z0-9_.-]*(crawler|spider)\b|\b[a-z0-9_.]+-?bot/[0-9]",
];

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "bot-detection", priority: 2500, schema, check_scope: settings::http_without_consumer, build }
}

fn schema() -> Schema {
    let patterns = || Field::array(Field::string().rule(Rule::IsRegex)).default(serde_json::json!([]));
    Schema::new([("allow", patterns()), ("deny", patterns())])
}

#[derive(Deserialize)]
struct Settings {
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
}

struct BotDetection {
    allow: RegexSet,
    deny: RegexSet,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    let compiled = |name: &str, patterns: Option<Vec<String>>| {
        RegexSet::new(patterns.unwrap_or_default())
            .map_err(|error| settings::refuse(context, format!("config.{name}: {error}")))
    };
    Ok(Box::new(BotDetection { allow: compiled("allow", settings.allow)?, deny: compiled("deny", settings.deny)? }))
}

impl Plugin for BotDetection {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { access: true, ..Phases::default() }, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let mut agents = exchange.request.headers.get_all(USER_AGENT);
        let (first, second) = (agents.next(), agents.next());
        if second.is_some() {
            return Step::Respond(LocalResponse::message(400, "Only one User-Agent header allowed"));
        }
        match first {
            Some(agent) if self.refuses(agent) => Step::Respond(LocalResponse::message(403, "Forbidden")),
            _ => Step::Next,
        }
    }
}

impl BotDetection {
    fn refuses(&self, agent: &[u8]) -> bool {
        !self.allow.is_match(agent) && (self.deny.is_match(agent) || built_in().is_match(agent))
    }
}

fn built_in() -> &'static RegexSet {
    static SET: LazyLock<RegexSet> = LazyLock::new(|| {
        let set = RegexSetBuilder::new(BOTS).case_insensitive(true).unicode(false).build();
        set.expect("the built-in patterns are constants that a test compiles")
    });
    &SET
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;
    use serde_json::{Value, json};

    fn check(config: Value, agents: &[&str], expected: &str) {
        let case = format!("{config} {agents:?}");
        let headers: Vec<_> = agents.iter().map(|agent| ("user-agent", *agent)).collect();
        let plugin = testing::build(&definition(), config);
        let response = testing::access(plugin.as_ref(), &mut testing::request("GET", "/", &headers));
        assert_eq!(testing::summary(response.as_ref()), expected, "{case}");
    }

    #[test]
    fn bots_are_known_and_people_pass() {
        for agent in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
            "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
            "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
            "Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "Twitterbot/1.0",
            "Scrapy/2.11.0 (+https://scrapy.org)",
            "HTTRACK",
            "Some-Crawler (v1)",
            "examplebot/1.0",
        ] {
            check(json!({}), &[agent], "403 Forbidden");
        }
        for agent in [
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
            "Mozilla/5.0 (Linux; Android 10; CUBOT X19) AppleWebKit/537.36",
            "curl/8.5.0",
            "Wget/1.21",
            "python-requests/2.31.0",
            "Go-http-client/1.1",
            "kube-probe/1.30",
            "robotics-client/1.0",
            "",
        ] {
            check(json!({}), &[agent], "next");
        }
    }

    #[test]
    fn lists_go_first() {
        check(json!({"allow": ["Twitter"]}), &["Twitterbot/1.0"], "next");
        check(json!({"deny": ["curl"]}), &["curl/8"], "403 Forbidden");
        check(json!({"deny": ["curl"]}), &["Curl/8"], "next");
        check(json!({"allow": ["curl/8"], "deny": ["curl"]}), &["curl/8"], "next");
        check(json!({"allow": ["curl/8"], "deny": ["curl"]}), &["curl/7"], "403 Forbidden");
    }

    #[test]
    fn one_agent_or_none() {
        check(json!({}), &[], "next");
        check(json!({}), &["a", "b"], "400 Only one User-Agent header allowed");
    }

    #[test]
    fn patterns_are_checked() {
        assert!(testing::problems(&schema(), json!({"allow": ["a+"]})).is_empty());
        assert!(!testing::problems(&schema(), json!({"deny": ["("]})).is_empty());
    }
}
