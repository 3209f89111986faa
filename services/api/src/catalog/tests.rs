//! The fixed queries on a real PostgreSQL, with their arguments as the pooler sends them: text.

use harness::{Cluster, Connection};
use tokio_postgres::types::ToSql;

use super::{databases, schemas, tables};

async fn names(connection: &Connection, sql: &str, arguments: &[&str]) -> Vec<String> {
    let arguments: Vec<_> = arguments.iter().map(|text| text as &(dyn ToSql + Sync)).collect();
    connection
        .query(sql, &arguments)
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[tokio::test]
async fn databases_are_found_by_name_with_their_sizes() {
    let cluster = Cluster::shared().await;
    let database = cluster.create_database().await;
    let connection = database.connect().await;
    let own = database.name();
    // Other tests make databases and drop them meanwhile.
    let ours = |names: Vec<String>| -> Vec<String> {
        let is_ours = |name: &String| ["postgres", "template0", "template1", own].contains(&name.as_str());
        names.into_iter().filter(is_ours).collect()
    };
    let all = names(&connection, databases::SQL, &["", "1000"]).await;
    assert!(all.is_sorted());
    // template0 allows no connections.
    assert_eq!(ours(all), ["postgres", "template1", own]);
    assert_eq!(names(&connection, databases::SQL, &["", "1"]).await, ["postgres"]);
    let rest = names(&connection, databases::SQL, &["postgres", "1000"]).await;
    assert_eq!(ours(rest), ["template1", own]);
    let rows = connection.query(databases::SQL, &[&"", &"1000"]).await.unwrap();
    let own = rows.iter().find(|row| row.get::<_, String>(0) == own).unwrap();
    assert_eq!((own.get::<_, &str>(1), own.get::<_, bool>(3)), ("postgres", true));
    assert!(own.get::<_, Option<i64>>(4).unwrap() > 0);
}

#[tokio::test]
async fn role_without_rights_sees_names_and_no_sizes() {
    let cluster = Cluster::shared().await;
    let database = cluster.create_database().await;
    database
        .execute("CREATE SCHEMA closed; CREATE TABLE closed.t ()")
        .await;
    database
        .execute(&format!(
            "REVOKE CONNECT ON DATABASE {} FROM PUBLIC",
            database.name()
        ))
        .await;
    let other = cluster.create_database().await;
    let login = cluster.create_login("").await;
    let rows = other
        .connect_as(&login)
        .await
        .query(databases::SQL, &[&"", &"1000"])
        .await
        .unwrap();
    let closed = rows
        .iter()
        .find(|row| row.get::<_, String>(0) == database.name())
        .unwrap();
    assert_eq!(
        (closed.get::<_, bool>(3), closed.get::<_, Option<i64>>(4)),
        (false, None)
    );
}

#[tokio::test]
async fn schemas_are_listed_without_postgresqls_own() {
    let database = Cluster::shared().await.create_database().await;
    database
        .execute("CREATE SCHEMA \"it's\"; CREATE SCHEMA app")
        .await;
    let connection = database.connect().await;
    assert_eq!(
        names(&connection, schemas::SQL, &["", "9"]).await,
        ["app", "it's", "public"]
    );
    assert_eq!(names(&connection, schemas::SQL, &["app", "1"]).await, ["it's"]);
}

#[tokio::test]
async fn tables_of_one_schema_are_listed_with_their_kinds() {
    let database = Cluster::shared().await.create_database().await;
    let objects = "CREATE SCHEMA \"x'; --\"; SET search_path = \"x'; --\"; \
                   CREATE TABLE a (id serial PRIMARY KEY, b text); \
                   INSERT INTO a (b) SELECT 'x' FROM generate_series(1, 9); \
                   ANALYZE a; CREATE VIEW v AS SELECT 1; CREATE MATERIALIZED VIEW m AS SELECT 1; \
                   CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE public.elsewhere ()";
    database.execute(objects).await;
    let connection = database.connect().await;
    let rows = connection
        .query(tables::SQL, &[&"x'; --", &"", &"9"])
        .await
        .unwrap();
    let found: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [("a", "r"), ("a_id_seq", "S"), ("m", "m"), ("p", "p"), ("v", "v")];
    assert_eq!(
        found,
        expected.map(|(name, kind)| (name.to_owned(), kind.to_owned()))
    );
    assert_eq!(rows[0].get::<_, i64>(3), 9);
    assert!(rows[0].get::<_, i64>(4) > 0);
    assert_eq!(
        names(&connection, tables::SQL, &["x'; --", "m", "9"]).await,
        ["p", "v"]
    );
    assert!(
        names(&connection, tables::SQL, &["absent", "", "9"])
            .await
            .is_empty()
    );
}
