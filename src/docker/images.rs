//! Image references to image ids, pulled as the policy says.

use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::failure::Op;
use super::{Docker, READ};
use crate::model::PullPolicy;
use crate::world::{EngineError, EngineErrorKind, Image};

/// A pull that says nothing for so long is given up.
const PULL_SILENCE: Duration = Duration::from_mins(5);
/// A pull that takes so long is given up.
const PULL_WHOLE: Duration = Duration::from_hours(1);

impl Docker {
    pub(super) async fn image(
        &self,
        reference: &str,
        policy: PullPolicy,
    ) -> Result<Image, EngineError> {
        if !is_reference(reference) {
            let why = format!("`{reference}` is not an image reference");
            return Err(Op::InspectImage.error(EngineErrorKind::InvalidSpec, why));
        }
        // An id names content: there is nothing to pull.
        let may_pull = policy != PullPolicy::Never && !is_id(reference);
        if may_pull && policy == PullPolicy::Always {
            self.pull(reference).await?;
        }
        match self.look_at_image(reference).await {
            Err(error)
                if error.kind == EngineErrorKind::ImageMissing
                    && may_pull
                    && policy == PullPolicy::IfNotPresent =>
            {
                self.pull(reference).await?;
                self.look_at_image(reference).await
            }
            answer => answer,
        }
    }

    async fn look_at_image(&self, reference: &str) -> Result<Image, EngineError> {
        let client = self.client().await?;
        let found = self.call(Op::InspectImage, READ, client.inspect_image(reference)).await?;
        let id = found.id.filter(|id| !id.is_empty()).ok_or_else(|| {
            Op::InspectImage.error(EngineErrorKind::Broken, "the engine's answer names no image id")
        })?;
        let user = found.config.and_then(|config| config.user).unwrap_or_default();
        Ok(Image { id, user })
    }

    /// Dropping the future closes the connection, and the engine ends the pull.
    async fn pull(&self, reference: &str) -> Result<(), EngineError> {
        let client = self.client().await?;
        let options = CreateImageOptionsBuilder::default().from_image(&with_tag(reference)).build();
        let who = super::credentials::of(reference).await;
        let mut progress = std::pin::pin!(client.create_image(Some(options), None, who));
        let end = Instant::now() + PULL_WHOLE;
        loop {
            let until = end.min(Instant::now() + PULL_SILENCE);
            match timeout_at(until, progress.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => {
                    let error = self.note(Op::Pull.failed(&error));
                    let message = format!("image `{reference}`: {}", error.message);
                    return Err(EngineError { message, ..error });
                }
                Err(_) => {
                    let why = format!("image `{reference}`: the pull made no progress");
                    return Err(Op::Pull.error(EngineErrorKind::PullFailed, why));
                }
            }
        }
    }
}

/// Without a tag the engine would pull every tag there is.
fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if reference.contains('@') || last.contains(':') {
        return reference.to_owned();
    }
    format!("{reference}:latest")
}

fn is_id(reference: &str) -> bool {
    reference.strip_prefix("sha256:").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What a reference may be made of: it becomes part of a path.
fn is_reference(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@-".contains(&b))
    };
    text.len() <= 512 && text.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_without_a_tag_means_latest_and_never_all() {
        assert_eq!(with_tag("a"), "a:latest");
        assert_eq!(with_tag("reg:5000/a/b"), "reg:5000/a/b:latest");
        assert_eq!(with_tag("reg:5000/a/b:1"), "reg:5000/a/b:1");
        assert_eq!(with_tag("a@sha256:00"), "a@sha256:00");
    }

    #[test]
    fn a_reference_cannot_leave_its_place_in_the_path() {
        for good in ["a", "a:1", "reg.example:5000/a_b/c-d:v1.2", "a@sha256:00ff", "sha256:00ff"] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", "../x", "a/../b", "a?b", "a#b", "a b", "a//b", "/a", "a%2f", "a\n", "-a"] {
            assert!(!is_reference(bad), "{bad}");
        }
    }
}
