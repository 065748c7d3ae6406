//! What the command line says.

/// What the command line says; `None` leaves the environment's, the file's or the default value.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--grpc`.
    pub grpc: Option<String>,
    /// `--socket`.
    pub socket: Option<String>,
    /// `--http`.
    pub http: Option<String>,
    /// `--log-file`.
    pub log_file: Option<String>,
    /// `--log-level`.
    pub log_level: Option<String>,
}

impl Overrides {
    /// The flag of a setting and its value, where it was given.
    pub(super) fn get(&self, section: &str, key: &str) -> Option<(&'static str, String)> {
        let (flag, value) = match (section, key) {
            ("server", "grpc") => ("--grpc", &self.grpc),
            ("server", "socket") => ("--socket", &self.socket),
            ("server", "http") => ("--http", &self.http),
            ("log", "file") => ("--log-file", &self.log_file),
            ("log", "level") => ("--log-level", &self.log_level),
            _ => return None,
        };
        value.clone().map(|value| (flag, value))
    }
}
