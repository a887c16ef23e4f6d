//! The pages. Each is one HTML file that contains its script, style and data.

use crate::picture::Picture;

const FRAME: &str = include_str!("page/frame.html");
const STYLE: &str = include_str!("page/style.css");
const CANVAS: &str = include_str!("page/canvas.js");
const TABLES: &str = include_str!("page/tables.js");
const CHARTS: &str = include_str!("page/charts.js");
const DRAWING: &str = include_str!("page/drawing.js");
const LANES: &str = include_str!("page/lanes.js");
const STILL: &str = include_str!("page/still.js");
const LIVE: &str = include_str!("page/live.js");

/// A page of a run that does not change.
pub fn still(picture: &Picture) -> serde_json::Result<String> {
    page(STILL, picture, "'none'")
}

/// A page of a run that requests updates.
pub fn live(picture: &Picture) -> serde_json::Result<String> {
    page(LIVE, picture, "'self'")
}

fn page(script: &str, picture: &Picture, may_connect_to: &str) -> serde_json::Result<String> {
    // A `<` could end the script element that has the data.
    let data = serde_json::to_string(picture)?.replace('<', "\\u003c");
    // The placeholders are replaced in order, so that inserted text is not searched for them.
    let mut page = String::with_capacity(FRAME.len() + STYLE.len() + LANES.len() + data.len());
    let mut rest = FRAME;
    for (placeholder, text) in [
        ("@CONNECT@", may_connect_to),
        ("@STYLE@", STYLE),
        ("@DATA@", &data),
        ("@CANVAS@", CANVAS),
        ("@TABLES@", TABLES),
        ("@DRAWING@", DRAWING),
        ("@LANES@", LANES),
        ("@CHARTS@", CHARTS),
        ("@SCRIPT@", script),
    ] {
        let (before, after) = rest.split_once(placeholder).expect("a placeholder in the frame");
        page.push_str(before);
        page.push_str(text);
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}
