//! Passwords of apps: argon2id, checked on threads of their own and only a few at a time.

use std::{collections::BTreeMap, sync::Arc};

use argon2::{
    Argon2, PasswordHash, PasswordHasher, PasswordVerifier,
    password_hash::{SaltString, rand_core::OsRng},
};
use tokio::sync::Semaphore;
use umbel_core::policy::Policy;

use crate::config::User;

/// Hashes computed at once: each takes 19 MiB and tens of milliseconds.
const HASHES_AT_ONCE: usize = 2;
/// Checks that may wait for their turn; more are refused at once.
const WAITING_MAX: usize = 256;

/// Why a password was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// Unknown user or wrong password; which one is not said, and takes the same time.
    Wrong,
    /// Too many checks are waiting.
    Busy,
}

/// The apps and their password hashes.
pub struct Passwords {
    users: BTreeMap<String, (Arc<str>, Policy)>,
    /// Checked for users that do not exist, so that they take as long as those that do.
    decoy: Arc<str>,
    turns: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Passwords {
    /// From the configured users.
    pub fn new(users: &[User]) -> Result<Self, argon2::password_hash::Error> {
        Ok(Self {
            users: users
                .iter()
                .map(|user| {
                    let hash = Arc::from(user.password_hash.as_str());
                    (user.name.clone(), (hash, user.policy.clone()))
                })
                .collect(),
            decoy: Arc::from(hash(b"nobody has this password")?),
            turns: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        })
    }

    /// The policy of the user, if the password is right.
    pub async fn check(&self, user: &str, password: Vec<u8>) -> Result<Policy, PasswordError> {
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(PasswordError::Busy);
        };
        let Ok(_turn) = self.turns.acquire().await else {
            return Err(PasswordError::Busy);
        };
        let known = self.users.get(user);
        let hash = Arc::clone(known.map_or(&self.decoy, |(hash, _)| hash));
        let right = tokio::task::spawn_blocking(move || verify(&hash, &password)).await;
        match (known, right) {
            (Some((_, policy)), Ok(true)) => Ok(policy.clone()),
            _ => Err(PasswordError::Wrong),
        }
    }
}

/// Argon2id with the parameters OWASP recommends (19 MiB, 2 passes, 1 lane), in PHC form.
pub fn hash(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    let salt = SaltString::generate(&mut OsRng);
    Ok(Argon2::default()
        .hash_password(password, &salt)?
        .to_string())
}

fn verify(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|parsed| Argon2::default().verify_password(password, &parsed).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(&[User {
            name: "app".into(),
            password_hash: hash(b"secret").unwrap(),
            policy: Policy::app_default(),
        }])
        .unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_accepted() {
        let passwords = passwords();
        assert!(passwords.check("app", b"secret".to_vec()).await.is_ok());
        for (user, password) in [("app", "wrong"), ("app", ""), ("nobody", "secret")] {
            let answer = passwords.check(user, password.as_bytes().to_vec()).await;
            assert_eq!(answer.err(), Some(PasswordError::Wrong), "{user}");
        }
    }

    #[test]
    fn two_hashes_of_one_password_differ() {
        assert_ne!(hash(b"secret").unwrap(), hash(b"secret").unwrap());
    }
}
