//! `plantain-pack verify PACK --against ONNX_DIR`

use anyhow::bail;
use plantain::pack::Pack;
use plantain_pack::packing::read_prompts;
use plantain_pack::verify::verify;

use super::{VerifyArgs, progress};

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let pack = Pack::open(&args.pack)?;
    let prompts = args.prompts.as_deref().map(read_prompts).transpose()?;
    let mut progress = progress(args.quiet);
    let found = verify(
        pack,
        &args.against,
        prompts.as_deref(),
        args.pictures.max(1),
        args.threads.max(1),
        &mut progress,
    )?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&found)?),
        false => print!("{found}"),
    }
    if let Some(median) = found.psnr_db_median
        && median < args.psnr_min
    {
        bail!(
            "the median of {} pictures is {median:.1} dB, below {} dB; keep more layers in f16 with --keep-f16",
            found.pictures.len(),
            args.psnr_min
        );
    }
    Ok(())
}
