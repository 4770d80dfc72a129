//! The file as a whole: who may open it, when it counts, what writers and readers see of each other.

use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Database, at};
use keyfleet_core::id::TokenId;
use keyfleet_store::{Error, Event, EventScope, Store, Token, TokenUse, Trouble, Tx};
use uuid::Uuid;

fn event(text: &str) -> Event {
    Event {
        at: at(0),
        actor: "test".into(),
        text: text.to_owned(),
    }
}

async fn write(store: &Store, text: &str) -> Result<(), Error> {
    let event = event(text);
    store
        .write(move |tx| tx.add_event(EventScope::Service, &event))
        .await
}

async fn texts(store: &Store) -> Vec<String> {
    let events = store
        .read(|tx| tx.events(EventScope::Service, 10_000))
        .await
        .unwrap();
    events.into_iter().map(|event| event.text).collect()
}

#[tokio::test]
async fn a_second_store_is_locked_out_until_the_first_is_closed() {
    let database = Database::new();
    let first = database.open();
    let refused = Store::open(&database.path()).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }));
    let text = refused.to_string();
    assert!(
        text.contains("keyfleet.db is in use by another control service"),
        "{text}"
    );
    first.close().await;
    assert_eq!(database.open().epoch(), 2);
}

#[tokio::test]
async fn the_epoch_rises_at_every_open_and_rows_stay() {
    let database = Database::new();
    for epoch in 1..=4 {
        let store = database.open();
        assert_eq!(store.epoch(), epoch);
        write(&store, &epoch.to_string()).await.unwrap();
        store.close().await;
    }
    assert_eq!(texts(&database.open()).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let database = Database::new();
    let store = database.open();
    write(&store, "kept").await.unwrap();
    store.close().await;
    let set_version = |version: i64| {
        let connection = rusqlite::Connection::open(database.path()).unwrap();
        connection
            .pragma_update(None, "user_version", version)
            .unwrap();
    };
    set_version(99);
    let refused = Store::open(&database.path()).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::TooNew {
                found: 99,
                known: 2,
                ..
            }
        ),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .contains("use the newer keyfleet-control")
    );
    set_version(2);
    let store = database.open();
    assert_eq!(
        (store.epoch(), texts(&store).await),
        (2, vec!["kept".to_owned()])
    );
}

#[tokio::test]
async fn nobody_else_may_read_the_files() {
    let database = Database::new();
    std::fs::write(database.path(), "").unwrap();
    std::fs::set_permissions(database.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = database.open();
    write(&store, "something").await.unwrap();
    assert_eq!(texts(&store).await.len(), 1);
    let dir = database.path().parent().unwrap().to_owned();
    let mut files = Vec::new();
    for file in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.file_name());
        files.push(file.file_name().into_string().unwrap());
    }
    files.sort();
    let expected = [
        "keyfleet.db",
        "keyfleet.db-shm",
        "keyfleet.db-wal",
        "keyfleet.db.lock",
    ];
    assert_eq!(files, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_each_hear_of_their_own_work_only() {
    let database = Database::new();
    let store = database.open();
    let writer = |number: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            let text = number.to_string();
            let fails = number.is_multiple_of(3);
            let event = event(&text);
            let work = move |tx: &Tx<'_>| {
                tx.add_event(EventScope::Service, &event)?;
                if fails {
                    Err(Refused::Me(number))
                } else {
                    Ok(number)
                }
            };
            (number, store.write(work).await)
        })
    };
    for task in (0..500).map(writer).collect::<Vec<_>>() {
        match task.await.unwrap() {
            (number, Ok(answer)) => assert!(answer == number && number % 3 != 0),
            (number, Err(Refused::Me(own))) => assert!(own == number && number % 3 == 0),
            (_, Err(Refused::Store(err))) => panic!("{err}"),
        }
    }
    let mut found: Vec<usize> = texts(&store)
        .await
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    found.sort_unstable();
    let kept: Vec<usize> = (0..500).filter(|number| number % 3 != 0).collect();
    assert_eq!(found, kept);
}

#[derive(Debug)]
enum Refused {
    Me(usize),
    Store(Error),
}

impl From<Error> for Refused {
    fn from(err: Error) -> Self {
        Self::Store(err)
    }
}

#[tokio::test]
async fn a_panic_undoes_its_own_work_and_goes_on_at_the_caller() {
    let database = Database::new();
    let store = database.open();
    let panics = |store: Store| {
        tokio::spawn(async move {
            let work = |tx: &Tx<'_>| -> Result<(), Error> {
                tx.add_event(EventScope::Service, &event("half"))?;
                panic!("on purpose")
            };
            store.write(work).await
        })
    };
    let (panicked, written) = tokio::join!(panics(store.clone()), write(&store, "whole"));
    assert!(panicked.unwrap_err().is_panic());
    written.unwrap();
    write(&store, "after").await.unwrap();
    assert_eq!(texts(&store).await, ["whole", "after"]);
}

#[tokio::test]
async fn a_read_that_fails_or_panics_leaves_no_old_view_behind() {
    let database = Database::new();
    let store = database.open();
    for round in 0..20 {
        let fails = |tx: &Tx<'_>| -> Result<(), Error> {
            tx.events(EventScope::Service, 1)?;
            Err(Error::Closed)
        };
        assert!(matches!(store.read(fails).await, Err(Error::Closed)));
        let panicking = store.clone();
        let panics = tokio::spawn(async move {
            panicking
                .read(|_| -> Result<(), Error> { panic!("on purpose") })
                .await
        });
        assert!(panics.await.unwrap_err().is_panic());
        write(&store, "more").await.unwrap();
        assert_eq!(texts(&store).await.len(), round + 1);
    }
}

#[tokio::test]
async fn a_read_cannot_write_and_sees_one_commit() {
    let database = Database::new();
    let store = database.open();
    let written = store
        .read(|tx| tx.add_event(EventScope::Service, &event("no")))
        .await;
    let is_refused = |err: &Error| {
        matches!(
            err,
            Error::Disk {
                trouble: Trouble::ReadOnly,
                ..
            }
        )
    };
    assert!(written.as_ref().is_err_and(is_refused), "{written:?}");
    let (store_too, runtime) = (store.clone(), tokio::runtime::Handle::current());
    let seen = store
        .read(move |tx| {
            let before = tx.events(EventScope::Service, 9)?.len();
            runtime.block_on(write(&store_too, "meanwhile"))?;
            Ok::<_, Error>((before, tx.events(EventScope::Service, 9)?.len()))
        })
        .await
        .unwrap();
    assert_eq!(seen, (0, 0));
    assert_eq!(texts(&store).await, ["meanwhile"]);
}

#[tokio::test]
async fn a_write_whose_caller_went_away_stands() {
    let database = Database::new();
    let store = database.open();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let abandoned = store.clone();
    let task = tokio::spawn(async move {
        let work = move |tx: &Tx<'_>| {
            let _ = started.send(());
            tx.add_event(EventScope::Service, &event("kept"))
        };
        abandoned.write(work).await
    });
    has_started.await.unwrap();
    task.abort();
    write(&store, "later").await.unwrap();
    assert_eq!(texts(&store).await, ["kept", "later"]);
}

#[tokio::test]
async fn a_closed_database_is_one_file() {
    let database = Database::new();
    let store = database.open();
    write(&store, "one").await.unwrap();
    assert_eq!(texts(&store).await, ["one"]);
    assert!(database.file("keyfleet.db-wal").exists());
    store.close().await;
    assert!(!database.file("keyfleet.db-wal").exists());
    let copy = database.file("copy.db");
    std::fs::copy(database.path(), &copy).unwrap();
    assert_eq!(texts(&Store::open(&copy).unwrap()).await, ["one"]);
}

#[tokio::test]
async fn after_close_reads_work_and_writes_are_refused() {
    let database = Database::new();
    let store = database.open();
    let last = write(&store, "last");
    let (written, ()) = tokio::join!(biased; last, store.close());
    written.unwrap();
    assert!(matches!(
        write(&store, "too late").await,
        Err(Error::Closed)
    ));
    assert_eq!(texts(&store).await, ["last"]);
    store.close().await;
    assert_eq!(texts(&store).await, ["last"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_join_token_never_gives_more_uses_than_it_has() {
    let database = Database::new();
    let store = database.open();
    let id = TokenId::new(Uuid::from_u128(1));
    let token = Token {
        id,
        usage: TokenUse::Join {
            labels: [("env".into(), "prod".into())].into(),
            uses_left: 5,
            deployment: None,
        },
        principal: "anna".into(),
        expires_at: at(60),
        created_at: at(0),
        created_by: "anna".into(),
        revoked: false,
    };
    store
        .write(move |tx| tx.insert_token(&token, &[7; 32]))
        .await
        .unwrap();
    let user = |_| {
        let store = store.clone();
        tokio::spawn(async move { store.write(move |tx| tx.use_token(id)).await.unwrap() })
    };
    let mut used = 0;
    for task in (0..40).map(user).collect::<Vec<_>>() {
        used += usize::from(task.await.unwrap());
    }
    assert_eq!(used, 5);
    let left = store
        .read(|tx| tx.token_of_hash(&[7; 32]))
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(left.usage, TokenUse::Join { uses_left: 0, .. }));
}
