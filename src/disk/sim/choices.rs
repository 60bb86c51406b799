//! What a power cut leaves: drawn from a seed, fixed, or tried exhaustively.

/// Answers the questions that a crash leaves open: did this sector reach the disk, did that name?
///
/// Each question has answers from 0, *as little as possible*, up to a maximum, *everything*.
#[derive(Debug, Clone)]
pub struct Choices {
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Nothing,
    All,
    Random { random: Random, mood: Mood },
    Enumerated { answers: Vec<Answer>, asked: usize },
}

/// How a random crash treats one file. With independent coins alone, many sectors would hardly ever be kept or lost
/// together.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Nothing,
    All,
    Mixed,
    /// Most answers repeat the one before.
    Runs {
        last: Answer,
    },
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    given: u64,
    most: u64,
}

impl Choices {
    /// Keeps nothing that was not synced.
    pub fn keep_nothing() -> Choices {
        Choices { source: Source::Nothing }
    }

    /// Keeps everything, synced or not.
    pub fn keep_all() -> Choices {
        Choices { source: Source::All }
    }

    /// Keeps a subset that depends on `seed` alone.
    pub fn from_seed(seed: u64) -> Choices {
        Choices { source: Source::Random { random: Random::from_seed(seed), mood: Mood::Mixed } }
    }

    /// Goes through every possible outcome: use it for one crash, call [`Choices::advance`], and repeat until that
    /// returns `false`. Only for crashes with few open questions, since the numbers of their answers multiply.
    pub fn exhaustive() -> Choices {
        Choices { source: Source::Enumerated { answers: Vec::new(), asked: 0 } }
    }

    /// Moves to the next outcome of an exhaustive search and returns `true`; `false` after the last one, and for other
    /// choices.
    pub fn advance(&mut self) -> bool {
        let Source::Enumerated { answers, asked } = &mut self.source else { return false };
        *asked = 0;
        while answers.last().is_some_and(|answer| answer.given == answer.most) {
            answers.pop();
        }
        match answers.last_mut() {
            Some(answer) => {
                answer.given += 1;
                true
            }
            None => false,
        }
    }

    /// Returns whether every answer will be given at some time, so that it does not matter how likely each is.
    pub(super) fn is_exhaustive(&self) -> bool {
        matches!(self.source, Source::Enumerated { .. })
    }

    /// Returns an answer from 0 to `most`.
    pub(super) fn pick(&mut self, most: u64) -> u64 {
        match &mut self.source {
            Source::Nothing => 0,
            Source::All => most,
            Source::Random { random, mood } => match mood {
                Mood::Nothing => 0,
                Mood::All => most,
                Mood::Mixed => random.up_to(most),
                Mood::Runs { last } => {
                    let given = match *last {
                        _ if random.up_to(3) == 0 => random.up_to(most),
                        Answer { given: 0, .. } => 0,
                        Answer { given, most: all } if given == all => most,
                        Answer { given, .. } => given.min(most),
                    };
                    *last = Answer { given, most };
                    given
                }
            },
            Source::Enumerated { answers, asked } => {
                if *asked == answers.len() {
                    answers.push(Answer { given: 0, most });
                }
                *asked += 1;
                answers[*asked - 1].given
            }
        }
    }

    /// Begins the questions about another file or directory, which may get another mood.
    pub(super) fn next_subject(&mut self) {
        if let Source::Random { random, mood } = &mut self.source {
            *mood = match random.up_to(7) {
                0 => Mood::Nothing,
                1 => Mood::All,
                2 | 3 => Mood::Runs { last: Answer { given: random.up_to(1), most: 1 } },
                _ => Mood::Mixed,
            };
        }
    }
}

/// The generator SplitMix64: small, and random enough for tests.
#[derive(Debug, Clone)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn from_seed(seed: u64) -> Random {
        Random { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(size_of::<u64>()) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// Returns a number from 0 to `most`, evenly enough for tests.
    fn up_to(&mut self, most: u64) -> u64 {
        match most.checked_add(1) {
            Some(count) => self.next() % count,
            None => self.next(),
        }
    }
}
