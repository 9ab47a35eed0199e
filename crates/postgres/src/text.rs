//! Just enough of SQL's lexical structure to see words and parameters outside of quotes.

/// A piece of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A keyword or an unquoted name.
    Word(&'a str),
    /// `$n`.
    Parameter(u32),
    /// Everything else, quoted text and comments included.
    Other(&'a str),
}

/// Splits a statement; the pieces, put together again, are the statement.
pub struct Tokens<'a>(pub &'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let text = self.0;
        let first = text.chars().next()?;
        let (length, parameter) = match first {
            '\'' | '"' => (quoted(text, first), None),
            '-' if text.starts_with("--") => (text.find('\n').unwrap_or(text.len()), None),
            '/' if text.starts_with("/*") => (text.find("*/").map_or(text.len(), |end| end + 2), None),
            '$' => dollar(text),
            _ if is_word(first) => (word(text), None),
            _ => (first.len_utf8(), None),
        };
        let (token, rest) = text.split_at_checked(length).unwrap_or((text, ""));
        self.0 = rest;
        Some(match parameter {
            Some(number) => Token::Parameter(number),
            None if is_word(first) => Token::Word(token),
            None => Token::Other(token),
        })
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn word(text: &str) -> usize {
    text.find(|c| !is_word(c)).unwrap_or(text.len())
}

/// Length of a quoted text; a doubled quote reads as two texts, which is as good.
fn quoted(text: &str, quote: char) -> usize {
    text.get(1..).and_then(|rest| rest.find(quote)).map_or(text.len(), |end| end + 2)
}

/// `$1`, or `$tag$ text $tag$`.
fn dollar(text: &str) -> (usize, Option<u32>) {
    let name = text.get(1..).unwrap_or_default();
    let length = word(name);
    if let Some(Ok(number)) = name.get(..length).map(str::parse) {
        return (length + 1, Some(number));
    }
    let Some(tag) = text.get(..length + 2).filter(|tag| tag.ends_with('$')) else { return (1, None) };
    let body = text.get(tag.len()..).unwrap_or_default();
    (body.find(tag).map_or(text.len(), |end| end + 2 * tag.len()), None)
}

/// The statement with its parameters written out; `literals` are theirs, in order.
pub fn written_out(sql: &str, literals: &[String]) -> Result<String, String> {
    Tokens(sql)
        .map(|token| match token {
            Token::Word(text) | Token::Other(text) => Ok(text),
            Token::Parameter(number) => {
                let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
                let literal = index.and_then(|index| literals.get(index));
                literal.map(String::as_str).ok_or_else(|| format!("there is no parameter ${number}"))
            }
        })
        .collect()
}

/// A text as a literal, whatever is in it (`standard_conforming_strings` on, as is the default).
pub fn quoted_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether a word stands anywhere in the statement, outside of quotes.
pub fn has_word(sql: &str, wanted: &str) -> bool {
    Tokens(sql).any(|token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(wanted)))
}

/// The statement's first word.
pub fn first_word(sql: &str) -> &str {
    Tokens(sql).find_map(|token| if let Token::Word(word) = token { Some(word) } else { None }).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_put_together_are_the_statement() {
        let sql =
            "SELECT \"a $1\", 'it''s $2', $tag$ $3 $tag$, $$ $4 $$ -- $5\n, $6 /* $7 */ FROM é WHERE x=$8";
        let mut again = String::new();
        let mut parameters = Vec::new();
        for token in Tokens(sql) {
            match token {
                Token::Word(text) | Token::Other(text) => again.push_str(text),
                Token::Parameter(number) => {
                    again.push_str(&format!("${number}"));
                    parameters.push(number);
                }
            }
        }
        assert_eq!(again, sql);
        assert_eq!(parameters, [6, 8]);
    }

    #[test]
    fn unfinished_text_ends_with_the_statement() {
        for sql in ["'a", "\"a", "/* a", "$a$ b", "$", "--", ""] {
            assert_eq!(Tokens(sql).map(|_| 1).sum::<usize>(), usize::from(!sql.is_empty()), "{sql}");
        }
    }

    #[test]
    fn parameters_are_written_out() {
        let literals = [quoted_literal("it's $2"), "NULL".to_owned()];
        let sql = "INSERT INTO a VALUES ($1, '$1', $2)";
        assert_eq!(written_out(sql, &literals).unwrap(), "INSERT INTO a VALUES ('it''s $2', '$1', NULL)");
        assert!(written_out("SELECT $3", &literals).is_err() && written_out("SELECT $0", &literals).is_err());
    }

    #[test]
    fn words_in_quotes_are_no_words() {
        assert!(has_word("INSERT INTO a VALUES (1) returning b", "RETURNING"));
        assert!(!has_word("INSERT INTO a VALUES ('returning') -- returning", "RETURNING"));
        assert_eq!(first_word("  /* x */ update a"), "update");
        assert_eq!(first_word("'x'"), "");
    }
}
