//! Mutations of bytes, from a seed.

/// Inputs kept for further mutation, beside the seeds.
const POOL_MAX: usize = 256;

/// Longest input: what is wrong with a long one is wrong with a short one, and short ones are tried faster.
const BYTES_MAX: usize = 384;

/// Mutates seeds and what was accepted among their offspring.
pub(crate) struct Mutator<'a> {
    state: u64,
    pool: Vec<Vec<u8>>,
    seeds: usize,
    words: &'a [&'a [u8]],
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, seeds: &[Vec<u8>], words: &'a [&'a [u8]]) -> Self {
        Self {
            state: seed | 1,
            pool: seeds.to_vec(),
            seeds: seeds.len(),
            words,
        }
    }

    /// One to five mutations of one input of the pool.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let at = self.below(self.pool.len());
        let mut input = self.pool[at].clone();
        for _ in 0..=self.below(5) {
            self.mutate(&mut input);
        }
        input.truncate(BYTES_MAX);
        input
    }

    /// Puts an accepted input into the pool, in the place of another that is not a seed.
    pub(crate) fn keep(&mut self, input: Vec<u8>) {
        if self.pool.len() < self.seeds + POOL_MAX {
            self.pool.push(input);
        } else {
            let at = self.seeds + self.below(POOL_MAX);
            self.pool[at] = input;
        }
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let (from, to) = self.range(input.len());
        match self.below(9) {
            0 if from < input.len() => input[from] ^= 1 << self.below(8),
            1 if from < input.len() => input[from] = self.random_byte(),
            2 if from < input.len() => input[from] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            3 => drop(input.drain(from..to)),
            4 => input.truncate(from),
            5 => {
                let copy = input[from..to].to_vec();
                let at = self.below(input.len() + 1);
                input.splice(at..at, copy);
            },
            6 => {
                let other = self.below(self.pool.len());
                let (begin, end) = self.range(self.pool[other].len());
                let piece = self.pool[other][begin..end].to_vec();
                input.splice(from..to, piece);
            },
            7 if !self.words.is_empty() => {
                let word = self.words[self.below(self.words.len())];
                let to = if self.below(2) == 0 { from } else { to };
                input.splice(from..to, word.iter().copied());
            },
            _ => input.insert(from, self.random_byte()),
        }
    }

    /// A short range within `len`.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let from = self.below(len + 1);
        (from, (from + self.below(16)).min(len))
    }

    fn random_byte(&mut self) -> u8 {
        self.draw().to_le_bytes()[3]
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.draw() >> 33).unwrap_or_default() % bound.max(1)
    }

    /// Xorshift with a multiplication at the end (Vigna's xorshift64*).
    fn draw(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
