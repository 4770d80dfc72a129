//! Whatever happened to the file: a clear error that says what to do, and a file that is left as it is.

use std::path::Path;

use keyfleet_store::{Error, Store};

use crate::common::{Database, said, say};

/// Rows enough for many pages.
const ROWS: usize = 400;

/// A closed database with many pages.
async fn filled() -> Database {
    let database = Database::new();
    let store = database.open();
    for row in 0..ROWS {
        say(&store, &format!("{row} {}", "x".repeat(200)))
            .await
            .unwrap();
    }
    store.close().await;
    database
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_what_to_do_and_left_as_it_is() {
    let page = 4096;
    let check = async |name: &str, spoil: &dyn Fn(&mut Vec<u8>)| {
        let database = filled().await;
        let mut bytes = std::fs::read(database.path()).unwrap();
        spoil(&mut bytes);
        std::fs::write(database.path(), &bytes).unwrap();
        let refused = Store::open(&database.path()).unwrap_err();
        assert!(
            matches!(refused, Error::Damaged { .. }),
            "{name}: {refused:?}"
        );
        let text = refused.to_string();
        assert!(text.contains("keyfleet.db is damaged"), "{name}: {text}");
        assert!(
            text.contains("keyfleet-control restore FILE"),
            "{name}: {text}"
        );
        let after = std::fs::read(database.path()).unwrap();
        assert!(after == bytes, "{name}: the file was changed");
    };
    check("the header", &|bytes| bytes[..100].fill(7)).await;
    check("the first page", &|bytes| bytes[100..page].fill(7)).await;
    check("a page in the middle", &|bytes| {
        let middle = bytes.len() / page / 2 * page;
        bytes[middle..middle + page].fill(7);
    })
    .await;
    check("truncated", &|bytes| bytes.truncate(bytes.len() / 2)).await;
    check("cut in a page", &|bytes| bytes.truncate(bytes.len() - 100)).await;
    check("garbage", &|bytes| {
        *bytes = b"this is a text file and not a database at all".repeat(99)
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let database = Database::new();
    let directory = database.file("directory.db");
    std::fs::create_dir(&directory).unwrap();
    let missing = database.file("missing").join("keyfleet.db");
    // Nobody can make a file there, not even root.
    let not_writable = Path::new("/proc/keyfleet.db");
    for path in [&directory, &missing, not_writable] {
        let refused = Store::open(path).unwrap_err();
        assert!(matches!(refused, Error::Lock { .. }), "{refused:?}");
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(refused.to_string().contains(name), "{refused}");
        assert!(refused.to_string().contains("writable"), "{refused}");
    }
}

#[tokio::test]
async fn without_its_log_a_database_is_an_older_one_and_sound() {
    for garbage in [None, Some(vec![7_u8; 40_000])] {
        let database = Database::new();
        let store = database.open();
        say(&store, "old").await.unwrap();
        store.close().await;
        drop(store);
        let store = database.open();
        say(&store, "in the log").await.unwrap();
        let copy = database.file("copy.db");
        std::fs::copy(database.path(), &copy).unwrap();
        if let Some(bytes) = &garbage {
            std::fs::write(database.file("copy.db-wal"), bytes).unwrap();
        }
        let without = Store::open(&copy).unwrap();
        assert_eq!(said(&without).await, ["old"]);
        assert_eq!(said(&store).await, ["old", "in the log"]);
    }
}
