//! One statement for many rows. A statement costs more than a row does; that is what makes a rebuild fast.

use sqlx::Error;

use super::database::{Row, Transaction, Value};

/// Rows of a statement, the largest first. Few sizes: each is a text that the database prepares once.
const SIZES: [usize; 4] = [512, 64, 8, 1];

/// A statement over rows of values, as a text for each size.
pub(super) struct Many {
    columns: usize,
    texts: [&'static str; SIZES.len()],
}

impl Many {
    /// `head ($1, $2), ($3, $4) … tail`. To be made once in a process: the texts stay.
    pub(super) fn new(head: &str, columns: usize, tail: &str) -> Self {
        let texts = SIZES.map(|rows| {
            let row = |row: usize| {
                let values: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
                format!("({})", values.join(", "))
            };
            let rows: Vec<_> = (0..rows).map(row).collect();
            let text = format!("{head} {} {tail}", rows.join(", "));
            &*Box::leak(text.into_boxed_str())
        });
        Self { columns, texts }
    }

    /// Runs it for all rows, whose values follow one another.
    pub(super) async fn execute(&self, tx: &mut dyn Transaction, values: Vec<Value>) -> Result<(), Error> {
        for (text, values) in self.parts(values) {
            tx.execute(text, values).await?;
        }
        Ok(())
    }

    /// What it finds for all rows.
    pub(super) async fn read(&self, tx: &mut dyn Transaction, values: Vec<Value>) -> Result<Vec<Row>, Error> {
        let mut found = Vec::new();
        for (text, values) in self.parts(values) {
            found.extend(tx.read(text, values).await?);
        }
        Ok(found)
    }

    fn parts(&self, values: Vec<Value>) -> impl Iterator<Item = (&'static str, Vec<Value>)> {
        let mut left = values.len() / self.columns;
        let mut values = values.into_iter();
        std::iter::from_fn(move || {
            let (rows, text) = SIZES.into_iter().zip(self.texts).find(|(rows, _)| *rows <= left)?;
            left -= rows;
            Some((text, values.by_ref().take(rows * self.columns).collect()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_apart_and_none_is_lost() {
        let many = Many::new("INSERT INTO t VALUES", 2, "ON CONFLICT DO NOTHING");
        assert_eq!(many.texts[3], "INSERT INTO t VALUES ($1, $2) ON CONFLICT DO NOTHING");
        assert!(many.texts[2].contains("($3, $4), ($5, $6)"), "{}", many.texts[2]);
        let values: Vec<Value> = (0..2 * 593_i64).map(Value::from).collect();
        let parts: Vec<_> = many.parts(values.clone()).collect();
        let sizes: Vec<_> = parts.iter().map(|(_, values)| values.len() / 2).collect();
        assert_eq!(sizes, [512, 64, 8, 8, 1]);
        assert_eq!(parts.into_iter().flat_map(|(_, values)| values).collect::<Vec<_>>(), values);
        assert_eq!(many.parts(Vec::new()).count(), 0);
    }
}
