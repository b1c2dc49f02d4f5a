//! `GET /e.gif`: a batch, or one event, as the address of an image. The last step of a tracker's ladder, and what a
//! page without scripts can do.

use std::{borrow::Cow, net::IpAddr};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use footfall_schemas::{
    EventId, RejectReason, Sequence, StreamId,
    tracker::{Batch, ClientFrame, MAX_PIXEL_EVENTS, PageContext},
};
use http::{HeaderMap, header};
use serde_json::{Map, Value, value::RawValue};
use url::{Url, form_urlencoded};
use warp::reply::Response;

use crate::{
    clock::now_ms,
    fallback::{admit, refuse, settle, token},
    intake,
    node::{Fault, Node},
    raw::RawBatch,
    reply::{Reply, allow_origin},
    routes::origin_of,
};

/// base64url, with or without padding.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The query. Of a field that is there twice the last counts.
#[derive(Debug, Default)]
struct Query {
    site: String,
    token: Option<String>,
    /// A batch frame, as JSON or base64url of it. All below is not looked at then.
    batch: Option<String>,
    /// The event's id, for a sender that may send it again.
    id: Option<String>,
    /// `u`, `r`, `t`, `n` of the event.
    texts: Map<String, Value>,
    /// `p` of the event: a JSON object.
    props: Option<String>,
    ctx: PageContext,
}

impl Query {
    fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match &*name {
                "k" => parsed.site = value,
                "t" => parsed.token = token(value),
                "b" => parsed.batch = Some(value),
                "id" => parsed.id = Some(value),
                "u" | "r" | "n" => {
                    parsed.texts.insert(name.into_owned(), value.into());
                }
                "title" => {
                    parsed.texts.insert("t".to_owned(), value.into());
                }
                "p" => parsed.props = Some(value),
                "w" => parsed.ctx.w = value.parse().ok(),
                "l" => parsed.ctx.l = Some(value),
                "z" => parsed.ctx.z = Some(value),
                _ => {}
            }
        }
        parsed
    }
}

pub(crate) async fn get(node: &Node, query: &str, headers: &HeaderMap, address: IpAddr) -> Response {
    let mut response = answer(node, query, headers, address).await.pixel();
    allow_origin(&mut response, origin_of(headers));
    response
}

async fn answer(node: &Node, query: &str, headers: &HeaderMap, address: IpAddr) -> Reply {
    let parsed = Query::parse(query);
    let referer = headers.get(header::REFERER).and_then(|referer| referer.to_str().ok());
    // Images come without an Origin; the page's address says the same.
    let page = referer.and_then(|referer| Url::parse(referer).ok());
    let page_origin = page.as_ref().map(|page| page.origin().ascii_serialization());
    let origin = origin_of(headers).or(page_origin.as_deref());
    let site = match admit(node, &parsed.site, origin, query.as_bytes()) {
        Ok(site) => site,
        Err(reply) => return *reply,
    };
    let token = parsed.token.clone();
    let text = match &parsed.batch {
        Some(text) => whole(text),
        None => single(parsed, referer).map(|batch| {
            serde_json::to_string(&batch).expect("plain fields with text keys always serialise").into()
        }),
    };
    let batch = match &text {
        Ok(text) => intake::batch(text).and_then(few),
        Err(fault) => Err((fault.clone(), 1)),
    };
    match batch {
        Ok(mut batch) => {
            batch.token = batch.token.or(token);
            settle(node, &site, headers, address, batch).await
        }
        Err((fault, events)) => refuse(node, &site, &fault, events, query.as_bytes()),
    }
}

/// `b=`
fn whole(text: &str) -> Result<Cow<'_, str>, Fault> {
    let json = if text.starts_with('{') {
        Cow::Borrowed(text)
    } else {
        let malformed =
            |_| Fault::new(RejectReason::Malformed, "b: send a batch as JSON, or base64url of it");
        let bytes = BASE64URL.decode(text).map_err(malformed)?;
        let decoded = String::from_utf8(bytes)
            .map_err(|_| Fault::new(RejectReason::BadUtf8, "b: text is not UTF-8"))?;
        decoded.into()
    };
    if intake::tag(&json)? != ClientFrame::Batch {
        let detail = "b: only a batch is taken here; send t = batch";
        return Err(Fault::new(RejectReason::Malformed, detail));
    }
    Ok(json)
}

fn few(batch: RawBatch<'_>) -> Result<RawBatch<'_>, (Fault, u64)> {
    if batch.events.len() > MAX_PIXEL_EVENTS {
        let detail = format!("b: {} events; send at most {MAX_PIXEL_EVENTS}", batch.events.len());
        return Err((Fault::new(RejectReason::TooLarge, detail), batch.events.len() as u64));
    }
    Ok(batch)
}

/// A custom event when it is named, else a page view; of the page that shows the image unless another is told.
fn single(query: Query, referer: Option<&str>) -> Result<Batch, Fault> {
    let mut event = query.texts;
    event.insert("k".to_owned(), if event.contains_key("n") { "custom" } else { "view" }.into());
    event.insert("at".to_owned(), 0.into());
    if let (false, Some(referer)) = (event.contains_key("u"), referer) {
        event.insert("u".to_owned(), referer.into());
    }
    let mut json = Value::Object(event).to_string();
    if let Some(props) = query.props {
        // As it was sent: the checks of an event's properties are the intake's.
        serde_json::from_str::<&RawValue>(&props).map_err(|error| {
            Fault::new(RejectReason::BadProps, format!("p: no JSON ({error}); send {{\"key\": value}}"))
        })?;
        json.pop();
        json += &format!(",\"p\":{props}}}");
    }
    let id = match &query.id {
        Some(id) => id.parse::<EventId>().map_err(|_| {
            Fault::new(RejectReason::BadField, "id: send a UUID whose last 32 bits are no zero")
        })?,
        // Never sent a second time: nobody knows it.
        None => EventId::new(StreamId::from_parts(now_ms().unsigned_abs(), rand::random()), Sequence::MIN),
    };
    let event = RawValue::from_string(json)
        .map_err(|error| Fault::new(RejectReason::Malformed, format!("event: {error}; send valid text")))?;
    Ok(Batch {
        tag: ClientFrame::Batch,
        stream: id.stream,
        first: id.sequence.get(),
        sent: 0,
        token: None,
        ctx: query.ctx,
        evicted: 0,
        events: vec![event],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate;
    use footfall_schemas::EventKind;
    use rstest::rstest;

    fn event(query: &str, referer: Option<&str>) -> footfall_schemas::TrackerEvent {
        let batch = single(Query::parse(query), referer).unwrap();
        validate::event(batch.events[0].get()).unwrap();
        serde_json::from_str(batch.events[0].get()).unwrap()
    }

    #[test]
    fn without_a_word_it_is_a_view_of_the_page_that_shows_it() {
        let view = event("k=shop", Some("https://shop.example/a?b"));
        assert_eq!((view.k, view.u.as_str()), (EventKind::PageView, "https://shop.example/a?b"));
    }

    #[test]
    fn a_named_event_is_a_custom_one_with_its_properties() {
        let query =
            "k=shop&u=https%3A%2F%2Fshop.example%2F&n=buy&p=%7B%22gift%22%3Atrue%7D&title=T&r=https://x/";
        let custom = event(query, Some("https://shop.example/other"));
        assert_eq!((custom.k, custom.n.as_deref()), (EventKind::Custom, Some("buy")));
        assert_eq!((custom.u.as_str(), custom.t.as_deref()), ("https://shop.example/", Some("T")));
        assert_eq!(custom.p.len(), 1);
    }

    #[test]
    fn an_event_with_an_id_keeps_it() {
        let batch = single(Query::parse("id=01a315e4-6800-a1b2-c3d4-e5f600000007"), None).unwrap();
        assert_eq!((batch.stream.to_string().as_str(), batch.first), ("01a315e46800a1b2c3d4e5f6", 7));
        let [one, two] = [0, 1].map(|_| single(Query::parse(""), None).unwrap().stream);
        assert_ne!(one, two);
    }

    #[rstest]
    #[case("id=7", RejectReason::BadField)]
    #[case("id=01a315e4-6800-a1b2-c3d4-e5f600000000", RejectReason::BadField)]
    #[case("p=nonsense", RejectReason::BadProps)]
    #[case("p=%7B%7D%2C%22u%22%3A1", RejectReason::BadProps)]
    fn what_is_no_event_is_refused_by_field(#[case] query: &str, #[case] reason: RejectReason) {
        let fault = single(Query::parse(query), None).unwrap_err();
        assert_eq!(fault.reason, reason);
        assert!(fault.detail.starts_with(&query[..query.find('=').unwrap()]), "{}", fault.detail);
    }

    fn json(events: usize) -> String {
        format!(
            r#"{{"t":"batch","stream":"{:024}","first":1,"sent":1,"events":[{}]}}"#,
            1,
            vec!["1"; events].join(",")
        )
    }

    #[test]
    fn a_batch_is_json_or_base64url_with_or_without_padding() {
        // 16 events or one: one of the lengths needs padding.
        for events in [1, 16, 2, 3] {
            let json = json(events);
            let padded = base64::engine::general_purpose::URL_SAFE.encode(&json);
            for text in [&json, padded.trim_end_matches('='), &padded] {
                let text = whole(text).unwrap();
                assert_eq!(intake::batch(&text).and_then(few).unwrap().events.len(), events);
            }
        }
    }

    #[rstest]
    #[case("!", RejectReason::Malformed)]
    #[case("", RejectReason::Malformed)]
    #[case("_w==", RejectReason::BadUtf8)]
    #[case("{}", RejectReason::Malformed)]
    #[case(r#"{"t":"here"}"#, RejectReason::Malformed)]
    #[case(&json(17), RejectReason::TooLarge)]
    fn what_is_no_batch_is_refused_whole(#[case] text: &str, #[case] reason: RejectReason) {
        let refused = whole(text).and_then(|text| match intake::batch(&text).and_then(few) {
            Ok(_) => panic!("taken"),
            Err((fault, _)) => Err::<(), _>(fault),
        });
        assert_eq!(refused.unwrap_err().reason, reason);
    }
}
