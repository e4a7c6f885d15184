//! A private PostgreSQL, started and stopped by `scripts/postgres`.

use lanekeeper_lab::testbed::PrivatePostgres;
use tempfile::TempDir;

use super::broker::done;
use super::{Issued, until};

/// A server. It ends with this value, and with this process.
pub struct Postgres {
    server: PrivatePostgres,
    _keep: TempDir,
}

impl Postgres {
    pub fn start() -> Self {
        let keep = tempfile::tempdir().expect("a directory can be made");
        Self { server: done(PrivatePostgres::start(&keep.path().join("postgres"))), _keep: keep }
    }

    /// A synchronous streaming standby: nothing is committed here from now on that is not there.
    pub async fn standby(&self) -> Self {
        let keep = tempfile::tempdir().expect("a directory can be made");
        let standby = done(self.server.standby(&keep.path().join("postgres")));
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
        self.execute("SELECT pg_reload_conf()").await;
        let state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        until("a synchronous standby", || async {
            match self.count(state).await {
                1 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
        Self { server: standby, _keep: keep }
    }

    /// It asks nobody for a password any more.
    pub async fn trust(&self) {
        self.execute(
            "DO $$ BEGIN
                 EXECUTE format('COPY (SELECT ''host all all 127.0.0.1/32 trust'') TO %L', current_setting('hba_file'));
             END $$",
        )
        .await;
        self.execute("SELECT pg_reload_conf()").await;
        let mine = self.url().replacen("lanekeeper:", "lanekeeper:not-", 1);
        until("a server that asks for no password", || async {
            let connecting = <sqlx::PgConnection as sqlx::Connection>::connect(&mine);
            connecting.await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// It speaks TLS, too, with this certificate.
    pub async fn show(&self, issued: &Issued) {
        let mut statements = Vec::new();
        for (file, pem) in [("test.crt", issued.pem()), ("test.key", issued.key_pem())] {
            let rows: Vec<_> = pem.lines().map(|line| format!("('{line}')")).collect();
            // The key must be readable by the server alone.
            let program = format!("umask 077 && cat >{file}");
            statements.push(format!("COPY (VALUES {}) TO PROGRAM '{program}'", rows.join(", ")));
        }
        let settings = ["ssl_cert_file = 'test.crt'", "ssl_key_file = 'test.key'", "ssl = on"];
        statements.extend(settings.map(|setting| format!("ALTER SYSTEM SET {setting}")));
        let mut connection = self.connect().await;
        for statement in statements {
            let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await;
            done.expect("the user may do everything");
        }
        self.execute("SELECT pg_reload_conf()").await;
        until("a server that speaks TLS", || async {
            match self.count("SELECT count(*) FROM pg_stat_ssl WHERE ssl AND pid = pg_backend_pid()").await {
                1 => Ok(()),
                _ => Err("it does not".to_owned()),
            }
        })
        .await;
    }

    /// Address and port.
    pub fn address(&self) -> &str {
        let after = self.url().split_once('@').expect("the script makes URLs").1;
        after.split('/').next().expect("with an address")
    }

    /// It takes writes from now on.
    pub async fn promote(&self) {
        self.execute("SELECT pg_promote()").await;
    }

    pub async fn execute(&self, statement: &'static str) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(statement).execute(&mut connection).await.expect("the statement is ours");
    }

    pub async fn count(&self, statement: &'static str) -> i64 {
        let mut connection = self.connect().await;
        sqlx::query_scalar(statement).fetch_one(&mut connection).await.expect("the statement is ours")
    }

    async fn connect(&self) -> sqlx::PgConnection {
        <sqlx::PgConnection as sqlx::Connection>::connect(self.url()).await.expect("the server runs")
    }

    /// Sends a signal to all of its processes.
    pub fn signal(&self, signal: &str) {
        done(self.server.signal(signal));
    }

    /// SIGKILL; the data stays.
    pub fn kill(&self) {
        done(self.server.kill());
    }

    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// An orderly end; the data stays.
    pub fn stop(&self) {
        done(self.server.stop());
    }

    /// On the same port and data.
    pub fn restart(&self) {
        done(self.server.restart());
    }
}
