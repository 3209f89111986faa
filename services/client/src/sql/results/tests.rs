//! What each form makes of the same events.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use domain::csv::CsvFormat;
use domain::settings::CsvLineEnding;
use rpc::query::v1::value::Kind;
use rpc::query::v1::{Column, Row, StreamedValue, Value, ValueChunk};

use super::*;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn column(name: &str, type_name: &str) -> Column {
    Column {
        name: name.into(),
        type_name: type_name.into(),
        ..Column::default()
    }
}

fn text(text: &str) -> Value {
    Value {
        kind: Some(Kind::Text(text.into())),
    }
}

fn null() -> Value {
    Value {
        kind: Some(Kind::Null(true)),
    }
}

fn streamed(size: usize) -> Value {
    Value {
        kind: Some(Kind::Streamed(StreamedValue { size: size as i64 })),
    }
}

fn row(values: &[Value]) -> Row {
    Row {
        values: values.to_vec(),
    }
}

fn chunk(column_index: i32, offset: usize, data: &[u8], last: bool) -> ValueChunk {
    ValueChunk {
        column_index,
        offset: offset as i64,
        data: Bytes::copy_from_slice(data),
        last,
    }
}

async fn written(mut results: Results, script: impl AsyncFn(&mut Results, &mut Sink)) -> String {
    let shared = Shared::default();
    let mut sink = Sink::new(Box::new(shared.clone()));
    script(&mut results, &mut sink).await;
    results.end(false, &mut sink).await.unwrap();
    sink.flush().await.unwrap();
    String::from_utf8(shared.0.lock().unwrap().clone()).unwrap()
}

async fn two_rows(results: &mut Results, sink: &mut Sink) {
    let columns = [
        column("id", "int8"),
        column("name", "text"),
        column("ok", "bool"),
        column("data", "jsonb"),
        column("id", "numeric"),
    ];
    results.columns(&columns, sink).await.unwrap();
    let rows = [
        row(&[
            text("9007199254740993"),
            text("a \"b\",\n\u{1b}c"),
            text("t"),
            text("{\"x\": [1]}"),
            text("NaN"),
        ]),
        row(&[text("-1"), null(), text("f"), null(), text("1.50")]),
    ];
    results.rows(&rows, sink).await.unwrap();
}

fn lf() -> CsvFormat {
    CsvFormat {
        line_ending: CsvLineEnding::Lf,
        header: true,
        ..CsvFormat::default()
    }
}

#[tokio::test]
async fn table_is_what_psql_shows() {
    let shown = written(Results::Table(TableResults::new(false)), two_rows).await;
    insta::assert_snapshot!(shown, @r#"
            id        |  name  | ok |    data    |  id
    ------------------+--------+----+------------+------
     9007199254740993 | a "b", | t  | {"x": [1]} |  NaN
                      | \x1Bc  |    |            |
                   -1 |        | f  |            | 1.50
    (2 rows)
    "#);
}

#[tokio::test]
async fn json_keeps_types_and_tells_columns_of_one_name_apart() {
    let shown = written(Results::Json(JsonResults::default()), two_rows).await;
    insta::assert_snapshot!(shown, @r#"
    {"id":9007199254740993,"name":"a \"b\",\n\u001bc","ok":true,"data":{"x": [1]},"id_2":"NaN"}
    {"id":-1,"name":null,"ok":false,"data":null,"id_2":1.50}
    "#);
    for line in shown.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[tokio::test]
async fn csv_follows_its_format() {
    let shown = written(Results::Csv(CsvResults::new(lf())), two_rows).await;
    assert_eq!(
        shown,
        "id,name,ok,data,id\n9007199254740993,\"a \"\"b\"\",\n\u{1b}c\",t,\"{\"\"x\"\": [1]}\",NaN\n-1,,f,,1.50\n"
    );
    let semicolons = CsvFormat {
        delimiter: domain::settings::CsvDelimiter::Semicolon,
        null_text: "NULL".into(),
        header: false,
        ..CsvFormat::default()
    };
    let shown = written(Results::Csv(CsvResults::new(semicolons)), two_rows).await;
    assert!(shown.ends_with("-1;NULL;f;NULL;1.50\r\n"), "{shown}");
    assert!(shown.starts_with("9007199254740993;"), "{shown}");
}

#[tokio::test]
async fn unaligned_is_values_and_bars() {
    let script = async |results: &mut Results, sink: &mut Sink| {
        results
            .columns(&[column("a", "int4"), column("b", "text")], sink)
            .await
            .unwrap();
        results
            .rows(&[row(&[text("1"), null()]), row(&[text("2"), text("x")])], sink)
            .await
            .unwrap();
    };
    assert_eq!(
        written(Results::Unaligned(UnalignedResults::new(false)), script).await,
        "a|b\n1|\n2|x\n(2 rows)\n"
    );
    assert_eq!(
        written(Results::Unaligned(UnalignedResults::new(true)), script).await,
        "1|\n2|x\n"
    );
}

/// A row of four: the first and the last value are large, and so is the third.
async fn large_values(results: &mut Results, sink: &mut Sink) {
    let columns = ["a", "b", "c", "d"].map(|name| column(name, "text"));
    results.columns(&columns, sink).await.unwrap();
    results
        .rows(&[row(&[text("w"), text("x"), text("y"), text("z")])], sink)
        .await
        .unwrap();
    for chunk in [
        chunk(0, 0, b"first", false),
        chunk(0, 5, b" \"quoted\"", true),
        chunk(2, 0, "grö".as_bytes().get(..3).unwrap(), false),
        chunk(2, 3, "ö".as_bytes().get(1..).unwrap(), true),
        chunk(3, 0, b"end", true),
    ] {
        results.chunk(&chunk, sink).await.unwrap();
    }
    results
        .rows(
            &[row(&[streamed(14), text("two"), streamed(4), streamed(3)])],
            sink,
        )
        .await
        .unwrap();
    results
        .rows(&[row(&[text("1"), null(), text("3"), text("4")])], sink)
        .await
        .unwrap();
}

#[tokio::test]
async fn large_values_stand_in_their_columns() {
    let csv = written(Results::Csv(CsvResults::new(lf())), large_values).await;
    assert_eq!(
        csv,
        "a,b,c,d\nw,x,y,z\n\"first \"\"quoted\"\"\",two,\"grö\",\"end\"\n1,,3,4\n"
    );
    let unaligned = written(Results::Unaligned(UnalignedResults::new(true)), large_values).await;
    assert_eq!(unaligned, "w|x|y|z\nfirst \"quoted\"|two|grö|end\n1||3|4\n");
    let json = written(Results::Json(JsonResults::default()), large_values).await;
    assert_eq!(
        json.lines().nth(1).unwrap(),
        r#"{"a":"first \"quoted\"","b":"two","c":"grö","d":"end"}"#
    );
    let table = written(Results::Table(TableResults::new(true)), large_values).await;
    assert!(table.contains("first… (14 bytes)"), "{table}");
}

#[tokio::test]
async fn bytes_that_are_no_text_survive_in_json() {
    let script = async |results: &mut Results, sink: &mut Sink| {
        results
            .columns(&[column("a", "text"), column("b", "text")], sink)
            .await
            .unwrap();
        results
            .chunk(&chunk(1, 0, &[0xff; 100_000], true), sink)
            .await
            .unwrap();
        let binary = Value {
            kind: Some(Kind::Binary(Bytes::from_static(&[0xfe, 0x00]))),
        };
        results
            .rows(&[row(&[binary, streamed(100_000)])], sink)
            .await
            .unwrap();
    };
    let json = written(Results::Json(JsonResults::default()), script).await;
    let json: serde_json::Value = serde_json::from_str(json.trim_end()).unwrap();
    assert_eq!(json["a"]["binary"], "/gA=");
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(json["b"]["binary"].as_str().unwrap())
        .unwrap();
    assert_eq!(bytes, [0xff; 100_000]);
}

#[tokio::test]
async fn row_that_is_cut_off_does_not_run_into_the_next_line() {
    let script = async |results: &mut Results, sink: &mut Sink| {
        results
            .columns(&[column("a", "text"), column("b", "text")], sink)
            .await
            .unwrap();
        results.chunk(&chunk(0, 0, b"half", false), sink).await.unwrap();
        results.end(true, sink).await.unwrap();
        results.columns(&[column("c", "text")], sink).await.unwrap();
    };
    assert_eq!(
        written(Results::Csv(CsvResults::new(lf())), script).await,
        "a,b\n\"half\"\nc\n"
    );
}

#[tokio::test]
async fn many_rows_are_drawn_in_parts() {
    let script = async |results: &mut Results, sink: &mut Sink| {
        results.columns(&[column("n", "int4")], sink).await.unwrap();
        let rows: Vec<_> = (0..1200).map(|n| row(&[text(&n.to_string())])).collect();
        results.rows(&rows, sink).await.unwrap();
    };
    let shown = written(Results::Table(TableResults::new(false)), script).await;
    assert_eq!(
        shown.lines().filter(|line| line.starts_with("--")).count(),
        1,
        "one header"
    );
    assert!(shown.trim_end().ends_with("(1200 rows)"), "{shown}");
    assert_eq!(shown.lines().count(), 2 + 1200 + 2);
}
