//! The functions in the database that the store calls: one for each call, in one round trip.

use std::fmt;

use bytes::{Bytes, BytesMut};
use cubbyhole_core::{Namespace, TenantId};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// A function of the schema; `migrations/*.sql` say what each does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Get,
    GetEntry,
    GetMany,
    Put,
    PutIf,
    Delete,
    DeleteIf,
    Take,
    Touch,
    WriteBatch,
    List,
    Scan,
    Namespaces,
    Usage,
    Erase,
    Evict,
    Tenants,
    Clock,
}

/// How many there are.
pub(crate) const COUNT: usize = ALL.len();

const ALL: [(Function, &str, &str); 18] = [
    (Function::Get, "get", "ttt"),
    (Function::GetEntry, "get_entry", "tttl"),
    (Function::GetMany, "get_many", "ttT"),
    (Function::Put, "put", "tttbull"),
    (Function::PutIf, "put_if", "tttbullu"),
    (Function::Delete, "delete", "ttt"),
    (Function::DeleteIf, "delete_if", "tttu"),
    (Function::Take, "take", "ttt"),
    (Function::Touch, "touch", "tttll"),
    (Function::WriteBatch, "write_batch", "ttTIIUULLB"),
    (Function::List, "list", "tttt"),
    (Function::Scan, "scan", "ttttilo"),
    (Function::Namespaces, "namespaces", "tttl"),
    (Function::Usage, "usage", "tt"),
    (Function::Erase, "erase", "ttl"),
    (Function::Evict, "evict", "i"),
    (Function::Tenants, "tenants", "ti"),
    (Function::Clock, "clock", ""),
];

/// How each function is called in one schema.
#[derive(Debug)]
pub(crate) struct Functions {
    statements: Vec<Statement>,
}

/// The text of a call, with the types of its parameters, so that no round trip asks for them.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) text: String,
    pub(crate) types: Vec<Type>,
}

impl Functions {
    pub(crate) fn new(schema: &str) -> Self {
        let statement = |(function, name, letters): &(Function, &str, &str)| {
            let places: Vec<String> = (1..=letters.len()).map(|n| format!("${n}")).collect();
            let call = format!("\"{schema}\".\"{name}\"({})", places.join(", "));
            // A row of its own is needed only where there are several columns.
            let text = match function {
                Function::Get
                | Function::Put
                | Function::Delete
                | Function::Touch
                | Function::Clock => format!("SELECT {call}"),
                _ => format!("SELECT * FROM {call}"),
            };
            Statement { text, types: letters.chars().map(type_of).collect() }
        };
        Self { statements: ALL.iter().map(statement).collect() }
    }

    pub(crate) fn get(&self, function: Function) -> &Statement {
        &self.statements[function as usize]
    }
}

fn type_of(letter: char) -> Type {
    match letter {
        't' => Type::TEXT,
        'b' => Type::BYTEA,
        'u' => Type::UUID,
        'l' => Type::INT8,
        'i' => Type::INT4,
        'o' => Type::BOOL,
        'T' => Type::TEXT_ARRAY,
        'B' => Type::BYTEA_ARRAY,
        'U' => Type::UUID_ARRAY,
        'L' => Type::INT8_ARRAY,
        _ => Type::INT4_ARRAY,
    }
}

/// One parameter of a call.
pub(crate) type Param = Box<dyn ToSql + Send + Sync>;

/// A parameter that owns what it sends and shows nothing of it: the driver writes parameters to
/// its debug log.
pub(crate) fn param<T: ToSql + Send + Sync + 'static>(value: T) -> Param {
    Box::new(Hidden(value))
}

struct Hidden<T>(T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

type ToSqlResult = Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

impl<T: ToSql> ToSql for Hidden<T> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> ToSqlResult {
        self.0.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        T::accepts(ty)
    }

    to_sql_checked!();
}

macro_rules! sent_as {
    ($($(#[$doc:meta])* $name:ident($inner:ty) as $wire:ty: $view:expr;)*) => {
        $($(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(pub(crate) $inner);

        impl ToSql for $name {
            fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> ToSqlResult {
                let view: fn(&$inner) -> $wire = $view;
                view(&self.0).to_sql(ty, out)
            }

            fn accepts(ty: &Type) -> bool {
                <$wire as ToSql>::accepts(ty)
            }

            to_sql_checked!();
        })*
    };
}

sent_as! {
    /// The rendered tenant.
    Tenant(TenantId) as &str: TenantId::as_rendered;
    /// The rendered namespace.
    Name(Namespace) as &str: Namespace::as_str;
    /// A value, not copied until it is sent.
    Value(Bytes) as &[u8]: |bytes| &bytes[..];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_stands_at_its_place() {
        for (place, (function, ..)) in ALL.iter().enumerate() {
            assert_eq!(*function as usize, place);
        }
    }

    #[test]
    fn a_parameter_shows_nothing() {
        assert_eq!(format!("{:?}", param("s3cret")), "(hidden)");
    }
}
