//! Chance for those who decide again without any.

use std::convert::Infallible;

use rand::TryRng;

/// Gives zeros, and remembers whether anybody asked.
#[derive(Default)]
pub(crate) struct NoChance {
    pub(crate) was_asked: bool,
}

impl TryRng for NoChance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.was_asked = true;
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.was_asked = true;
        Ok(0)
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        self.was_asked = true;
        dst.fill(0);
        Ok(())
    }
}
