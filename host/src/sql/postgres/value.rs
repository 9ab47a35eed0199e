//! Values of the port as the server's types, and back.

use bytes::BytesMut;
use deadpool_postgres::Client;
use futures_util::{TryStreamExt as _, pin_mut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Row, Statement as Prepared};

use super::call::Trouble;
use crate::sql::{Error, RESULT_BYTES_MAX, ROWS_MAX, Value};

type Boxed = Box<dyn std::error::Error + Sync + Send>;

/// Pairs parameters with the types that the server inferred.
pub fn bind<'a>(
    types: &[Type],
    values: impl Iterator<Item = &'a Value>,
) -> Result<Vec<Parameter<'a>>, Error> {
    let values: Vec<&Value> = values.collect();
    if values.len() != types.len() {
        let text = format!("the statement has {} parameters, {} were given", types.len(), values.len());
        return Err(Error::Invalid(text));
    }
    values.into_iter().zip(types).map(|(value, wanted)| Parameter::new(value, wanted)).collect()
}

/// A parameter that fits its type.
#[derive(Debug)]
pub struct Parameter<'a>(&'a Value);

impl<'a> Parameter<'a> {
    fn new(value: &'a Value, wanted: &Type) -> Result<Self, Error> {
        value.check()?;
        let fits = match value {
            Value::Null => true,
            Value::Boolean(_) => *wanted == Type::BOOL,
            Value::Int64(value) => match *wanted {
                Type::INT8 => true,
                Type::INT4 => i32::try_from(*value).is_ok(),
                _ => false,
            },
            Value::Text(_) => [Type::TEXT, Type::VARCHAR, Type::JSON].contains(wanted),
            Value::Bytes(_) => *wanted == Type::BYTEA,
        };
        let refuse = || Error::Invalid(format!("a parameter of another type than {wanted} was given"));
        if fits { Ok(Self(value)) } else { Err(refuse()) }
    }
}

impl ToSql for Parameter<'_> {
    fn to_sql(&self, wanted: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        match self.0 {
            Value::Null => Ok(IsNull::Yes),
            Value::Boolean(value) => value.to_sql(wanted, out),
            Value::Int64(value) if *wanted == Type::INT4 => i32::try_from(*value)?.to_sql(wanted, out),
            Value::Int64(value) => value.to_sql(wanted, out),
            Value::Text(value) => value.to_sql(&Type::TEXT, out),
            Value::Bytes(value) => value.to_sql(wanted, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true // checked when it was bound
    }

    to_sql_checked!();
}

/// All rows, within the budget, and the count of affected rows.
pub async fn collect(
    client: &Client,
    prepared: &Prepared,
    params: &[Parameter<'_>],
) -> Result<(Vec<Row>, u64), Trouble> {
    let params = params.iter().map(|parameter| parameter as &(dyn ToSql + Sync));
    let stream = client.query_raw(prepared, params).await.map_err(Trouble::Server)?;
    pin_mut!(stream);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = stream.try_next().await.map_err(Trouble::Server)? {
        bytes += row.raw_size_bytes();
        rows.push(row);
        if rows.len() > ROWS_MAX || bytes > RESULT_BYTES_MAX {
            let text = format!("a result has at most {ROWS_MAX} rows and {RESULT_BYTES_MAX} bytes");
            return Err(Trouble::Host(Error::TooLarge(text)));
        }
    }
    let affected = stream.rows_affected().unwrap_or_default();
    Ok((rows, affected))
}

/// One column of a row.
pub fn of_column(row: &Row, index: usize) -> Result<Value, Error> {
    row.try_get::<_, Column>(index).map(|column| column.0).map_err(|error| Error::Invalid(error.to_string()))
}

struct Column(Value);

impl<'a> FromSql<'a> for Column {
    fn from_sql(given: &Type, raw: &'a [u8]) -> Result<Self, Boxed> {
        Ok(Self(match *given {
            Type::BOOL => Value::Boolean(bool::from_sql(given, raw)?),
            Type::INT8 => Value::Int64(i64::from_sql(given, raw)?),
            Type::INT4 => Value::Int64(i32::from_sql(given, raw)?.into()),
            Type::INT2 => Value::Int64(i16::from_sql(given, raw)?.into()),
            Type::BYTEA => Value::Bytes(raw.to_vec()),
            _ => Value::Text(String::from_sql(&Type::TEXT, raw)?),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Boxed> {
        Ok(Self(Value::Null))
    }

    fn accepts(given: &Type) -> bool {
        [Type::BOOL, Type::INT8, Type::INT4, Type::INT2, Type::BYTEA, Type::TEXT, Type::VARCHAR, Type::JSON]
            .contains(given)
    }
}
