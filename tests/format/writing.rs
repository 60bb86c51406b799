//! What writers append: the library plays the scenes of the page's *Three examples for writers*.

use std::sync::Arc;

use caskfile::disk::sim::SimDisk;
use caskfile::{Cask, Config};

use crate::common::files::layout::ROOTS_END;
use crate::common::files::library::{PATH, SameEveryTime};

/// What one call has appended: where it starts, and its bytes.
pub struct Scene {
    pub start: usize,
    pub bytes: Vec<u8>,
}

/// The scenes in the order of the page. In the first, A opens a new store and puts one pair.
pub fn scenes() -> Vec<Scene> {
    let disk = SimDisk::new();
    let open = || Cask::open_on(Arc::new(SameEveryTime(disk.process())), PATH, &Config::new()).unwrap();
    let data_end = || {
        let file = disk.contents(PATH).unwrap();
        file.iter().rposition(|&byte| byte != 0).unwrap().next_multiple_of(8)
    };
    let mut scenes = Vec::new();
    let mut start = ROOTS_END;
    let mut play = |act: &dyn Fn()| {
        act();
        let (file, end) = (disk.contents(PATH).unwrap(), data_end());
        scenes.push(Scene { start, bytes: file[start..end].to_vec() });
        start = end;
    };
    let a = open();
    play(&|| a.put("a", "1").map(drop).unwrap());
    let b = open();
    play(&|| b.put("b", "2").map(drop).unwrap());
    play(&|| a.put("c", "3").map(drop).unwrap());
    play(&|| b.put("d", "4").map(drop).unwrap());
    play(&|| a.put("e", "5").map(drop).unwrap());
    play(&|| a.close().unwrap());
    b.close().unwrap();
    let c = open();
    play(&|| c.put("f", "6").map(drop).unwrap());
    scenes
}
