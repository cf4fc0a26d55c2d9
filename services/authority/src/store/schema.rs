//! The embedded migrations of both stores, and the question whether a store's schema is the one of this program.
//!
//! Forward only: a schema that is older, newer or of another origin is refused, never guessed at (DESIGN section 9).

use super::StoreError;
use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

/// What a migration run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The schema's version before; 0 for an empty store.
    pub before: i64,
    /// The schema's version now.
    pub now: i64,
}

/// A migration that a store says was applied.
pub(super) struct Applied {
    pub(super) version: i64,
    pub(super) checksum: Vec<u8>,
}

/// The table in which sqlx notes what was applied.
pub(super) const APPLIED: &str =
    "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version";

/// Migrations by name and text, numbered from 1 in their order.
pub(super) fn migrator(texts: &[(&'static str, &'static str)]) -> Migrator {
    let number = |(index, (name, sql)): (usize, &(&'static str, &'static str))| {
        let version = i64::try_from(index + 1).unwrap_or(i64::MAX);
        Migration::new(version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(texts.iter().enumerate().map(number).collect())
}

/// The version of a schema.
pub(super) fn version(applied: &[Applied]) -> i64 {
    applied.last().map_or(0, |last| last.version)
}

/// Refuses a schema that is not exactly the one of these migrations.
pub(super) fn check(applied: &[Applied], migrator: &Migrator) -> Result<(), StoreError> {
    let known = migrator.iter().last().map_or(0, |last| last.version);
    let found = version(applied);
    if found == 0 {
        return Err(StoreError::Schema("there is none yet; `consent migrate` makes it".into()));
    }
    if found > known {
        return Err(StoreError::Schema(format!("it has version {found}, this program knows {known}")));
    }
    if found < known {
        let hint = "`consent migrate` brings it up to date";
        return Err(StoreError::Schema(format!(
            "it has version {found}, this program needs {known}; {hint}"
        )));
    }
    let same = applied.len() == migrator.iter().count()
        && applied
            .iter()
            .zip(migrator.iter())
            .all(|(a, m)| a.version == m.version && *a.checksum == *m.checksum);
    if same {
        Ok(())
    } else {
        Err(StoreError::Schema(format!("version {found} was made by other migrations than this program's")))
    }
}

/// Why migrations were not applied: a schema that this program does not know, or the store itself.
pub(super) fn refused(error: MigrateError, of_store: impl Fn(sqlx::Error) -> StoreError) -> StoreError {
    if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
        return of_store(error);
    }
    StoreError::Schema(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(migrator: &Migrator) -> Vec<Applied> {
        migrator.iter().map(|m| Applied { version: m.version, checksum: m.checksum.to_vec() }).collect()
    }

    #[test]
    fn only_the_programs_own_schema_is_accepted() {
        let (one, two) = (migrator(&[("a", "SELECT 1")]), migrator(&[("a", "SELECT 1"), ("b", "SELECT 2")]));
        let other = migrator(&[("a", "SELECT 3")]);
        assert!(check(&applied(&one), &one).is_ok());
        for (found, program) in [(&two, &one), (&one, &two), (&other, &one)] {
            assert!(matches!(check(&applied(found), program), Err(StoreError::Schema(_))));
        }
        assert!(matches!(check(&[], &one), Err(StoreError::Schema(_))));
    }
}
