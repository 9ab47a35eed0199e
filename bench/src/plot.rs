//! A line chart as SVG, with logarithmic heights.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use settle_tests::host::root;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 6] = ["#1b6ac9", "#0a9b6b", "#c9571b", "#7a3fc0", "#b8860b", "#c02a5c"];

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Writes `bench/results/NAME.svg`.
pub fn plot(name: &str, across: &str, up: &str, lines: &[Line]) -> Result<()> {
    let all = || lines.iter().flat_map(|line| &line.points);
    let widest = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let lowest = all().map(|(_, y)| y.max(0.01)).fold(f64::INFINITY, f64::min).min(1.0);
    let highest = all().map(|(_, y)| *y).fold(1.0, f64::max).max(lowest * 10.0);
    let x = |value: f64| MARGIN + value / widest * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| {
        let share = (value.max(0.01) / lowest).ln() / (highest / lowest).ln();
        HEIGHT - MARGIN - share * (HEIGHT - 2.0 * MARGIN)
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for step in 0..=4 {
        let value = widest * f64::from(step) / 4.0;
        writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{value:.0}</text>",
            x(value),
            HEIGHT - MARGIN + 18.0
        )?;
        let value = lowest * (highest / lowest).powf(f64::from(step) / 4.0);
        writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{value:.1}</text>",
            MARGIN - 8.0,
            y(value) + 4.0
        )?;
        writeln!(out, "<path d=\"M{MARGIN} {0:.1}H{1}\" stroke=\"#ddd\"/>", y(value), WIDTH - MARGIN)?;
    }
    writeln!(
        out,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{across}</text>",
        WIDTH / 2.0,
        HEIGHT - 16.0
    )?;
    writeln!(out, "<text x=\"16\" y=\"24\">{up}</text>")?;
    for ((line, colour), row) in lines.iter().zip(COLOURS.iter().cycle()).zip(0_u32..) {
        let points: Vec<String> =
            line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        )?;
        let height = 40.0 + f64::from(row) * 16.0;
        writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{height:.0}\" fill=\"{colour}\">{}</text>",
            MARGIN + 12.0,
            line.name
        )?;
    }
    out.push_str("</svg>\n");
    fs::write(root().join("bench/results").join(format!("{name}.svg")), out)?;
    Ok(())
}
