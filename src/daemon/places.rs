//! How many clients are served at once, in all and of one address: whoever opens connections and says
//! nothing does not keep the others out, and does not take the last descriptor.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{access::Crowd, telemetry::metrics::Clients};

/// How many connections more are accepted only to be told that there are too many.
const TURNED_AWAY: usize = 32;

/// Who has a connection, as far as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Guest {
    /// Whoever is at this address; of IPv6 the network, of which one machine has every address.
    Address(IpAddr),
    /// A user, on the socket.
    User(u32),
}

impl Guest {
    /// The one at this address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            address => address,
        })
    }
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_of_one: usize,
    taken: Mutex<Taken>,
    clients: Clients,
}

#[derive(Debug, Default)]
struct Taken {
    served: HashMap<Guest, usize>,
    turned_away: usize,
}

/// The place of one connection, which it gives back when it ends.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    guest: Guest,
    turned_away: Option<Crowd>,
}

impl Places {
    /// So many in all, and so many of one address.
    pub(super) fn new(most: usize, most_of_one: usize, clients: Clients) -> Arc<Self> {
        Arc::new(Self { most, most_of_one, taken: Mutex::default(), clients })
    }

    /// Takes a place, be it one of those who are only told that they are too many; `None` where even of
    /// these there are too many.
    pub(super) fn take(self: &Arc<Self>, guest: Guest) -> Option<Place> {
        let mut taken = self.taken();
        let all: usize = taken.served.values().sum();
        let of_one = taken.served.get(&guest).copied().unwrap_or_default();
        let turned_away = if all >= self.most {
            Some(Crowd::Clients(self.most))
        } else if of_one >= self.most_of_one {
            Some(Crowd::OfOne(self.most_of_one))
        } else {
            None
        };
        if turned_away.is_some() {
            self.clients.turned_away();
        } else {
            self.clients.came();
        }
        match turned_away {
            None => *taken.served.entry(guest).or_default() += 1,
            Some(_) if taken.turned_away < TURNED_AWAY => taken.turned_away += 1,
            Some(_) => return None,
        }
        Some(Place { places: self.clone(), guest, turned_away })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Why whoever has it is not served; `None`: they are.
    pub(super) fn turned_away(&self) -> Option<Crowd> {
        self.turned_away
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if self.turned_away.is_some() {
            taken.turned_away -= 1;
        } else if let Some(count) = taken.served.get_mut(&self.guest) {
            self.places.clients.went();
            *count -= 1;
            if *count == 0 {
                taken.served.remove(&self.guest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn places(most: usize, most_of_one: usize) -> Arc<Places> {
        Places::new(most, most_of_one, Metrics::new().clients("grpc"))
    }

    fn guest(address: &str) -> Guest {
        Guest::at(address.parse().expect("an address"))
    }

    #[test]
    fn a_place_is_taken_and_given_back() {
        let places = places(3, 2);
        let take = |guest| places.take(guest).expect("there is a place");
        let (ana, bob) = (guest("10.0.0.1"), guest("10.0.0.2"));
        let first = take(ana);
        let _second = take(ana);
        let third = take(ana);
        assert_eq!((first.turned_away(), third.turned_away()), (None, Some(Crowd::OfOne(2))));
        let _fourth = take(bob);
        assert_eq!(take(bob).turned_away(), Some(Crowd::Clients(3)));
        drop(first);
        assert_eq!(take(ana).turned_away(), None);
        drop(third);
        let served = places.taken().served.clone();
        assert_eq!((served[&ana], served[&bob], places.taken().turned_away), (1, 1, 0));
    }

    #[test]
    fn those_who_are_turned_away_are_not_without_number() {
        let places = places(0, 1);
        let held: Vec<_> =
            (0..TURNED_AWAY).map(|_| places.take(Guest::User(7)).expect("it is told")).collect();
        assert!(places.take(Guest::User(7)).is_none());
        drop(held);
        assert!(places.take(Guest::User(7)).is_some());
    }

    #[test]
    fn one_machine_is_one_guest() {
        assert_eq!(guest("2001:db8:1:2:3::4"), guest("2001:db8:1:2::"));
        assert_ne!(guest("2001:db8:1:2::1"), guest("2001:db8:1:3::1"));
        assert_eq!(guest("::ffff:10.0.0.1"), guest("10.0.0.1"));
        assert_ne!(guest("::1"), guest("10.0.0.1"));
    }
}
