//! [`Locals`]: the values of a process that its tasks share, by [`Context::local`].

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

#[cfg(doc)]
use super::Context;
use crate::panics;

/// The values behind [`Context::local`], one for each type.
#[derive(Default)]
pub(crate) struct Locals {
    cells: Mutex<HashMap<TypeId, Arc<Cell>>>,
}

#[derive(Default)]
struct Cell {
    value: OnceLock<Arc<dyn Any + Send + Sync>>,
    /// Locked while the value is made.
    making: Mutex<()>,
}

impl Cell {
    fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = Arc::clone(self.value.get()?);
        Some(value.downcast().expect("the cell of a type holds that type"))
    }
}

impl Locals {
    /// The map is locked only to find the cell: making a value may take long, or ask for another local.
    fn cell<T: 'static>(&self) -> Arc<Cell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry(TypeId::of::<T>()).or_default())
    }

    pub(super) fn get<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let Ok(value) = self.try_get(|| Ok::<T, Infallible>(make()));
        value
    }

    pub(super) fn try_get<T: Send + Sync + 'static, E>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let cell = self.cell::<T>();
        if let Some(value) = cell.get() {
            return Ok(value);
        }
        let _making = cell.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = cell.get() {
            return Ok(value);
        }
        let value = Arc::new(make()?);
        let _ = cell.value.set(Arc::clone(&value) as Arc<dyn Any + Send + Sync>);
        Ok(value)
    }

    pub(super) fn get_made<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.cell::<T>().get()
    }
}

impl Locals {
    /// Drops all values that are not in use elsewhere.
    pub(crate) fn clear(&self) {
        let cells = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *cells)
        };
        for (_, cell) in cells {
            panics::discard(cell);
        }
    }
}

impl fmt::Debug for Locals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locals").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_local_that_cannot_be_made_is_made_by_the_next_that_asks_and_then_kept() {
        let locals = Locals::default();
        assert_eq!(locals.get_made::<u32>(), None);
        assert_eq!(locals.try_get::<u32, _>(|| Err("no")), Err("no"));
        assert_eq!(locals.get_made::<u32>(), None);
        assert_eq!(locals.try_get(|| Ok::<u32, &str>(1)), Ok(Arc::new(1)));
        assert_eq!(locals.try_get::<u32, _>(|| Err("not called")), Ok(Arc::new(1)));
        assert_eq!((*locals.get(|| 2_u32), locals.get_made()), (1, Some(Arc::new(1_u32))));
        assert_eq!(locals.get_made::<String>(), None);
    }

    #[test]
    fn of_many_threads_that_ask_for_a_local_one_makes_it() {
        let (locals, made) = (Locals::default(), AtomicUsize::new(0));
        let make = || match made.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Err(()),
            _ => Ok("made"),
        };
        let results = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| locals.try_get(make))).collect();
            threads.into_iter().map(|it| it.join().expect("no panic")).collect::<Vec<_>>()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 6);
        assert_eq!(made.load(Ordering::SeqCst), 3);
    }
}
