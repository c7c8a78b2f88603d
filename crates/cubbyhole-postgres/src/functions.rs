//! The SQL functions that the store calls, and the parameter types of each.

use std::fmt;

use bytes::{Bytes, BytesMut};
use cubbyhole_core::{Namespace, TenantId};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// A function in the schema. `migrations/*.sql` define them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Get,
    GetEntry,
    GetMany,
    Stat,
    Put,
    PutIf,
    Delete,
    DeleteIf,
    Take,
    Touch,
    WriteBatch,
    List,
    Scan,
    ScanRefreshing,
    ScanRecursive,
    Namespaces,
    Usage,
    DeletePrefix,
    Erase,
    Evict,
    Tenants,
    Clock,
}

/// The number of functions.
pub(crate) const FUNCTION_COUNT: usize = ALL.len();

/// Each function with its SQL name and a letter for the type of each parameter (see [`type_of`]),
/// in the order of the enum.
const ALL: [(Function, &str, &str); 22] = [
    (Function::Get, "get", "ttt"),
    (Function::GetEntry, "get_entry", "tttlo"),
    (Function::GetMany, "get_many", "ttTlo"),
    (Function::Stat, "stat", "ttT"),
    (Function::Put, "put", "tttbulll"),
    (Function::PutIf, "put_if", "tttbullliu"),
    (Function::Delete, "delete", "ttt"),
    (Function::DeleteIf, "delete_if", "tttiu"),
    (Function::Take, "take_entry", "ttt"),
    (Function::Touch, "touch", "tttllliu"),
    (Function::WriteBatch, "write_batch", "ttTIIUULLLB"),
    (Function::List, "list", "tttt"),
    (Function::Scan, "scan", "ttttiloo"),
    (Function::ScanRefreshing, "scan_refreshing", "ttttiloo"),
    (Function::ScanRecursive, "scan_recursive", "ttttilo"),
    (Function::Namespaces, "namespaces", "tttl"),
    (Function::Usage, "usage", "tt"),
    (Function::DeletePrefix, "delete_prefix", "ttttl"),
    (Function::Erase, "erase", "ttl"),
    (Function::Evict, "evict", "i"),
    (Function::Tenants, "tenants", "ti"),
    (Function::Clock, "clock", ""),
];

/// The statements that call the functions of one schema.
#[derive(Debug)]
pub(crate) struct CallStatements {
    statements: Vec<CallStatement>,
}

/// A statement that calls a function. Known parameter types save the round trip that would ask the
/// server for them.
#[derive(Debug)]
pub(crate) struct CallStatement {
    pub(crate) text: String,
    pub(crate) types: Vec<Type>,
}

impl CallStatements {
    pub(crate) fn new(schema: &str) -> Self {
        let statement = |(function, name, letters): &(Function, &str, &str)| {
            let placeholders: Vec<String> = (1..=letters.len()).map(|n| format!("${n}")).collect();
            let call = format!("\"{schema}\".\"{name}\"({})", placeholders.join(", "));
            // A function that returns one value needs no FROM clause.
            let text = match function {
                Function::Get | Function::Put | Function::Delete | Function::Clock => {
                    format!("SELECT {call}")
                }
                _ => format!("SELECT * FROM {call}"),
            };
            CallStatement { text, types: letters.chars().map(type_of).collect() }
        };
        Self { statements: ALL.iter().map(statement).collect() }
    }

    pub(crate) fn get(&self, function: Function) -> &CallStatement {
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

/// Makes a parameter whose `Debug` output hides the value, because the driver logs parameters at
/// debug level.
pub(crate) fn param<T: ToSql + Send + Sync + 'static>(value: T) -> Param {
    Box::new(Redacted(value))
}

struct Redacted<T>(T);

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

type ToSqlResult = Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

impl<T: ToSql> ToSql for Redacted<T> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> ToSqlResult {
        self.0.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        T::accepts(ty)
    }

    to_sql_checked!();
}

/// Defines a parameter type that owns a contract type and sends a borrowed view of it.
macro_rules! param_types {
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

param_types! {
    /// A tenant, in its rendered form.
    TenantParam(TenantId) as &str: TenantId::as_rendered;
    /// A namespace, in its rendered form.
    NamespaceParam(Namespace) as &str: Namespace::as_str;
    /// A value. It is copied only when it is sent.
    ValueParam(Bytes) as &[u8]: |bytes| &bytes[..];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_lists_functions_in_enum_order() {
        for (index, (function, ..)) in ALL.iter().enumerate() {
            assert_eq!(*function as usize, index);
        }
    }

    #[test]
    fn debug_output_of_a_parameter_hides_its_value() {
        assert_eq!(format!("{:?}", param("s3cret")), "(hidden)");
    }
}
