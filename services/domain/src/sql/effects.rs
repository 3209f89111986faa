//! What a script may leave behind in its session once its transaction is over, as far as its text shows.
//!
//! A hint with one safe side: what is not known to be harmless may leave something. The other side stays open, since a
//! trigger, a view or a policy may run code that the text does not name; so a backend that looks clean by this is still
//! asked before it serves another session.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::lexer::{StringSyntax, Token, TokenKind, tokens};

/// What a script may do to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects {
    /// It may leave state that a look at the backend shows: settings, a role, temporary tables, locks and the like.
    pub leaves: bool,
    /// It may end such state.
    pub ends: bool,
    /// It leaves state that no look shows and no reset ends.
    pub sticks: bool,
    /// It leaves traces that no reset ends, even where it leaves no state.
    pub taints: bool,
}

/// Statements that begin with these words may leave something.
const LEAVING: [&str; 12] = [
    "set",
    "reset",
    "discard",
    "listen",
    "unlisten",
    "prepare",
    "deallocate",
    "execute",
    "declare",
    "do",
    "call",
    "load",
];
/// Statements that begin with these words may end what was left.
const ENDING: [&str; 6] = ["drop", "close", "commit", "end", "rollback", "abort"];
/// Functions that leave what no look shows and no reset ends.
const STICKING: [&str; 8] = [
    "setseed",
    "pg_backup_start",
    "pg_start_backup",
    "pg_create_physical_replication_slot",
    "pg_create_logical_replication_slot",
    "pg_copy_physical_replication_slot",
    "pg_copy_logical_replication_slot",
    "pg_replication_origin_session_setup",
];
/// A name after one of these words is not called, whatever parenthesis follows.
const NOT_CALLED_AFTER: [&str; 18] = [
    "aggregate",
    "analyze",
    "as",
    "constraint",
    "copy",
    "domain",
    "exists",
    "function",
    "index",
    "into",
    "key",
    "procedure",
    "recursive",
    "references",
    "table",
    "vacuum",
    "view",
    "with",
];

/// Reads a script.
#[must_use]
pub fn effects(sql: &str, strings: StringSyntax) -> Effects {
    let mut reader = Reader::default();
    let mut rest = tokens(sql, strings).filter(|token| !token.is_blank());
    while let Some(token) = rest.next() {
        reader.read(&token, rest.clone());
    }
    reader.effects
}

#[derive(Default)]
struct Reader<'a> {
    effects: Effects,
    /// Within a statement.
    begun: bool,
    /// The word or name that came last, if nothing came after it.
    name: Option<Token<'a>>,
    /// A name of another schema than the system's.
    foreign: bool,
    /// The word before that name, leaving its schema out.
    before: Option<Token<'a>>,
    dotted: bool,
}

impl<'a> Reader<'a> {
    fn read(&mut self, token: &Token<'a>, rest: impl Iterator<Item = Token<'a>>) {
        if token.is_symbol(';') {
            *self = Self {
                effects: self.effects,
                ..Self::default()
            };
            return;
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.first_word(token, rest);
        } else if token.is_symbol('(')
            && let Some(name) = self.name
        {
            self.called(&name, rest);
        }
        self.remember(token);
    }

    fn first_word(&mut self, first: &Token<'a>, rest: impl Iterator<Item = Token<'a>>) {
        let is = |words: &[&str]| words.iter().any(|word| first.is_word(word));
        self.effects.leaves |= is(&LEAVING);
        self.effects.ends |= is(&ENDING);
        if first.is_word("load") {
            self.sticks();
        }
        if first.is_word("set") {
            self.set(rest);
        } else if first.is_word("do") {
            self.body(rest);
        }
    }

    /// `SET [SESSION | LOCAL] a.b ...`: a customized option, which is never forgotten again (PostgreSQL manual, 20.16).
    fn set(&mut self, rest: impl Iterator<Item = Token<'a>>) {
        let mut rest = rest.peekable();
        let Some(mut name) = rest.next() else { return };
        let mut is_dotted = rest.peek().is_some_and(|next| next.is_symbol('.'));
        let scope = !is_dotted && (name.is_word("local") || name.is_word("session"));
        let local = scope && name.is_word("local");
        if scope {
            let Some(next) = rest.next() else { return };
            name = next;
            is_dotted = rest.peek().is_some_and(|next| next.is_symbol('.'));
        }
        // In quotes the dot may be a part of the name, or hide behind an escape.
        let quoted = name.kind == TokenKind::QuotedName;
        if is_dotted || quoted && (name.text.contains('.') || !name.text.starts_with('"')) {
            self.effects.taints = true;
            self.effects.sticks |= !local;
        }
        if plain_name(&name).eq_ignore_ascii_case("seed") {
            self.sticks();
        }
    }

    /// The body of a `DO`, where it is a constant: what it calls, it calls now.
    fn body(&mut self, mut rest: impl Iterator<Item = Token<'a>>) {
        if let Some(body) = rest.find(|token| token.kind == TokenKind::String) {
            let inner = effects(contents(body.text), StringSyntax::Standard);
            self.effects.sticks |= inner.sticks;
            self.effects.taints |= inner.taints;
        }
    }

    fn called(&mut self, name: &Token<'a>, mut arguments: impl Iterator<Item = Token<'a>>) {
        if self
            .before
            .is_some_and(|before| NOT_CALLED_AFTER.iter().any(|word| before.is_word(word)))
        {
            return;
        }
        let plain = plain_name(name);
        if STICKING.contains(&plain.as_str()) || plain.starts_with("dblink_connect") {
            self.sticks();
        } else if plain == "set_config" {
            self.effects.leaves = true;
            // Of a name that is not given as a plain constant nobody knows what it is.
            let builtin = arguments.next().is_some_and(|name| is_plain_name(&name))
                && arguments.next().is_some_and(|comma| comma.is_symbol(','));
            if !builtin {
                self.sticks();
            }
        } else if self.foreign || !INERT.contains(plain.as_str()) {
            self.effects.leaves = true;
        }
    }

    fn sticks(&mut self) {
        self.effects.leaves = true;
        self.effects.sticks = true;
        self.effects.taints = true;
    }

    fn remember(&mut self, token: &Token<'a>) {
        let is_name = matches!(token.kind, TokenKind::Word | TokenKind::QuotedName);
        // A table, a function or a cast in the temporary schema, or one to come.
        if is_name
            && (token.is_word("temp")
                || token.is_word("temporary")
                || plain_name(token).starts_with("pg_temp"))
        {
            self.effects.leaves = true;
        }
        if token.is_symbol('.') {
            self.dotted = self.name.is_some();
            return;
        }
        if std::mem::take(&mut self.dotted) && is_name {
            self.foreign = self
                .name
                .is_some_and(|schema| plain_name(&schema) != "pg_catalog");
        } else {
            self.before = self.name;
            self.foreign = false;
        }
        self.name = is_name.then_some(*token);
    }
}

/// The name as the server reads it: without quotes, and in lower case without them.
fn plain_name(token: &Token<'_>) -> String {
    match token.kind {
        TokenKind::QuotedName => token.text.trim_matches('"').to_owned(),
        _ => token.text.to_ascii_lowercase(),
    }
}

/// True for the name of a run-time parameter of PostgreSQL's own that a look shows.
fn is_plain_name(token: &Token<'_>) -> bool {
    let text = token.text;
    let is_constant = token.kind == TokenKind::String && text.starts_with('\'') && token.closed;
    is_constant && !text.contains('.') && !text.eq_ignore_ascii_case("'seed'")
}

/// A string constant without its quotes, single or dollar.
fn contents(text: &str) -> &str {
    if text.starts_with('$')
        && let Some(tag) = text.get(1..).and_then(|rest| rest.find('$'))
    {
        let quote = tag + 2;
        return text.get(quote..text.len().saturating_sub(quote)).unwrap_or("");
    }
    text.trim_matches('\'')
}

/// Words that a parenthesis may follow and that leave nothing behind: key words, types, and functions of PostgreSQL
/// that only compute.
const INERT_WORDS: &str = "
    abs acos age all and any any_value array array_agg array_append array_cat array_dims array_length array_lower
    array_ndims array_position array_positions array_prepend array_remove array_replace array_to_json
    array_to_string array_upper as ascii asin at atan atan2 avg between bigint bit bit_and bit_length bit_or bool
    bool_and bool_or boolean bpchar btrim by cardinality case casefold cast cbrt ceil ceiling char char_length
    character character_length check chr clock_timestamp coalesce col_description collate concat concat_ws conflict
    convert_from convert_to corr cos count crc32 cube cume_dist current_database current_query current_schema
    current_schemas current_setting current_time current_timestamp date date_part date_trunc daterange dec decimal
    decode default degrees dense_rank distinct div else encode end every except exists exp extract factorial filter
    first_value float floor foreign format format_type from gcd gen_random_uuid generate_series generate_subscripts
    get_bit get_byte greatest grouping has_database_privilege has_schema_privilege has_table_privilege having host
    if in inet_client_addr inet_server_addr initcap int int4 int4range int8 int8range integer intersect interval is
    isempty isfinite join json json_agg json_array_elements json_array_length json_build_array json_build_object
    json_each json_object_agg json_object_keys json_populate_record json_to_record json_to_recordset jsonb jsonb_agg
    jsonb_array_elements jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text
    jsonb_object_agg jsonb_object_keys jsonb_path_exists jsonb_path_query jsonb_populate_record jsonb_pretty
    jsonb_set jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof justify_days justify_hours
    justify_interval lag last_value lateral lcm lead least left length like limit ln localtime log lower lower_inc
    lpad ltrim make_date make_interval make_timestamp make_timestamptz masklen max md5 min min_scale mod mode
    multirange multirange_agg network nextval normalize not now nth_value ntile nullif num_nonnulls numeric numrange
    obj_description octet_length offset on or ordinality over overlaps overlay parse_ident partition percent_rank
    percentile_cont percentile_disc pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_backend_pid pg_column_size
    pg_current_xact_id pg_database_size pg_encoding_to_char pg_get_constraintdef pg_get_expr pg_get_functiondef
    pg_get_indexdef pg_get_serial_sequence pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_is_in_recovery
    pg_notify pg_postmaster_start_time pg_relation_size pg_size_pretty pg_sleep pg_table_is_visible pg_table_size
    pg_total_relation_size pg_try_advisory_xact_lock pg_typeof position power primary quote_ident quote_literal
    quote_nullable radians random range_agg rank real regexp_count regexp_instr regexp_like regexp_match
    regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat replace returning
    reverse right rollup round row row_number row_to_json rpad rtrim scale select set set_bit set_byte set_masklen
    sets setval sha224 sha256 sha384 sha512 sign sin smallint some split_part sqrt starts_with statement_timestamp
    stddev stddev_pop stddev_samp string_agg string_to_array string_to_table strpos substr substring sum tan text
    then time timeofday timestamp timestamptz to to_char to_date to_hex to_json to_jsonb to_number to_regclass
    to_regtype to_timestamp transaction_timestamp translate trim trim_scale trunc tsrange tstzrange txid_current
    txid_current_snapshot union unique unnest upper upper_inc using uuid values var_pop var_samp varbit varchar
    variance varying version when where width_bucket window within xmlagg xmlelement xmlforest";

static INERT: LazyLock<HashSet<&str>> = LazyLock::new(|| INERT_WORDS.split_ascii_whitespace().collect());

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Effects {
        effects(sql, StringSyntax::Standard)
    }

    #[test]
    fn what_only_computes_leaves_nothing() {
        for sql in [
            "",
            "select 1",
            "SELECT count(*), Max(a) FROM t WHERE b IN (1, 2) AND coalesce(c, 'set_config(') = $1",
            "insert into a.t (b, c) values (1, (2)) on conflict (b) do nothing returning *",
            "with a (x) as (select 1), b as (select now()) select * from a join b on (true)",
            "create table t (a int, b numeric(10, 2) check (b > 0))",
            "update t set a = upper(b) where exists (select from u)",
            "select pg_catalog.pg_sleep(1)",
            "select * from unnest(array[1]) as g(x)",
            "/* set role x */ select 'load' -- listen",
        ] {
            assert_eq!(of(sql), Effects::default(), "{sql}");
        }
    }

    #[test]
    fn what_may_leave_something_is_seen() {
        for sql in [
            "set work_mem = '1MB'",
            "SET LOCAL work_mem = 1",
            "select 1; reset all",
            "select pg_advisory_lock(1)",
            "select \"pg_try_advisory_lock\" (1)",
            "select myfunction()",
            "select public.count(1)",
            "create temp table t (a int)",
            "select 1 into temporary t",
            "create table pg_temp.t ()",
            "declare c cursor with hold for select 1",
            "prepare p as select 1",
            "do $$begin end$$",
            "call p()",
            "listen a",
            "select set_config('work_mem', '1MB', false)",
            "explain analyze select f(1)",
            "begin; set role x",
            "select 1 from t join f(1) on true",
        ] {
            let effects = of(sql);
            assert!(
                effects.leaves && !effects.sticks && !effects.taints,
                "{sql}: {effects:?}"
            );
        }
    }

    #[test]
    fn what_no_look_shows_sticks() {
        for sql in [
            "select setseed(0.5)",
            "LOAD 'auto_explain'",
            "set my.tenant = 'a'",
            "set session \"my\".tenant to 1",
            "select pg_catalog.set_config('my.tenant', 'a', false)",
            "select set_config($1, 'a', false)",
            "select set_config('my' || '.tenant', 'a', true)",
            "select dblink_connect_u('a')",
            "set session \"my.tenant\" = 'a'",
            "set session.tenant = 'a'",
            "set local.x = 1",
            "set U&\"my\\002etenant\" = 'a'",
            "set seed = 0.5",
            "SET SESSION \"seed\" TO 0.5",
            "select set_config('Seed', '0.5', false)",
            "select pg_backup_start('a')",
            "select pg_create_logical_replication_slot('a', 'b', true)",
            "do $x$ begin perform set_config('my.tenant', 'a', false); end $x$",
            "do 'begin perform setseed(0.5); end'",
        ] {
            let effects = of(sql);
            assert!(
                effects.leaves && effects.sticks && effects.taints,
                "{sql}: {effects:?}"
            );
        }
        let local = of("set local my.tenant = 'a'");
        assert!(local.taints && !local.sticks);
    }

    #[test]
    fn what_may_end_a_state_is_seen() {
        for sql in ["drop table t", "close all", "COMMIT", "select 1; rollback"] {
            assert!(of(sql).ends, "{sql}");
        }
        assert!(!of("select 1 as close").ends);
    }
}
