//! Where a webhook is, as objects say it: `clientConfig` with `url` or `service`, and `caBundle`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Uri;
use serde_json::Value;

use super::WebhookError;
use super::resolve::{Resolve, ServiceReference};

/// Where a webhook is and whom to trust there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientConfig {
    /// The certificates to trust in PEM form; none means what this machine trusts.
    pub(super) bundle: Option<Bytes>,
    /// The name that the certificate has to be for.
    pub(super) server_name: String,
    /// What the `Host` header says.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
    /// The service, where it is one; else the host of the authority is connected to.
    service: Option<ServiceReference>,
    port: u16,
}

impl ClientConfig {
    /// Reads a `clientConfig`.
    pub(crate) fn parse(config: &Value) -> Result<Self, WebhookError> {
        let bundle = match config["caBundle"].as_str() {
            None | Some("") => None,
            Some(text) => {
                let bytes = BASE64_STANDARD.decode(text);
                Some(bytes.map_err(|error| WebhookError::Config(format!("caBundle: {error}")))?.into())
            }
        };
        match (config["url"].as_str(), &config["service"]) {
            (Some(_), Value::Object(_)) | (None, Value::Null) => {
                Err(WebhookError::Config("exactly one of url or service is required".into()))
            }
            (Some(url), _) => {
                Self::of_url(url, bundle).map_err(|problem| WebhookError::Config(format!("url: {problem}")))
            }
            (None, service) => Self::of_service(service, bundle),
        }
    }

    fn of_url(url: &str, bundle: Option<Bytes>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("{url:?}: 'https' is the only allowed URL scheme"));
        }
        let authority = uri.authority().ok_or_else(|| format!("{url:?}: host must be specified"))?;
        if authority.as_str().contains('@') {
            return Err(format!("{url:?}: user information is not permitted in the URL"));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(format!("{url:?}: query parameters and fragments are not permitted in the URL"));
        }
        Ok(Self {
            bundle,
            server_name: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            authority: authority.to_string(),
            path: if uri.path().is_empty() { "/".into() } else { uri.path().into() },
            service: None,
            port: authority.port_u16().unwrap_or(443),
        })
    }

    fn of_service(service: &Value, bundle: Option<Bytes>) -> Result<Self, WebhookError> {
        let text = |field: &str| match service[field].as_str() {
            None | Some("") => Err(WebhookError::Config(format!("service.{field}: Required value"))),
            Some(text) => Ok(text.to_owned()),
        };
        let (namespace, name) = (text("namespace")?, text("name")?);
        let port =
            match &service["port"] {
                Value::Null => 443,
                port => port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).ok_or_else(
                    || WebhookError::Config("service.port: must be between 1 and 65535, inclusive".into()),
                )?,
            };
        let path = service["path"].as_str().unwrap_or_default();
        let server_name = format!("{name}.{namespace}.svc");
        Ok(Self {
            bundle,
            authority: format!("{server_name}:{port}"),
            server_name,
            path: if path.starts_with('/') { path.into() } else { format!("/{path}") },
            service: Some(ServiceReference { namespace, name, port }),
            port,
        })
    }

    /// What is called, as messages name it.
    pub(crate) fn url(&self) -> String {
        format!("https://{}{}", self.authority, self.path)
    }

    /// Where to connect to, the best place first: `address:port` or `name:port`.
    pub(super) fn places(&self, resolver: &dyn Resolve) -> Result<Vec<String>, WebhookError> {
        match &self.service {
            Some(service) => {
                resolver.resolve(service).map_err(|problem| WebhookError::Unresolved { url: self.url(), problem })
            }
            None if self.server_name.contains(':') => Ok(vec![format!("[{}]:{}", self.server_name, self.port)]),
            None => Ok(vec![format!("{}:{}", self.server_name, self.port)]),
        }
    }
}
