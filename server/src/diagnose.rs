//! `understudy doctor`: examine registration files and print the findings.

use std::path::Path;
use std::time::Duration;

use actors::appservices::{File, read_folder};
use ruma::OwnedServerName;

use crate::cli::Doctor;
use crate::config::Config;
use crate::doctor::{DoctorReport, ExaminationContext, RegistrationFile, examine, frameworks};
use crate::mscs;
use crate::options::text;
use crate::say::print;

/// Examine the files and print the findings. Fails when they are bad enough.
pub(crate) async fn diagnose(doctor: Doctor) -> Result<(), String> {
    let (server_name, folder) = match &doctor.config {
        Some(file) => {
            let config = Config::read(file)?;
            (Some(config.server_name), Some(config.appservices))
        }
        None => (doctor.server_name, doctor.appservices),
    };
    if let Some(name) = &server_name {
        OwnedServerName::try_from(name.as_str())
            .map_err(|e| format!("server name {name:?}: {e}"))?;
    }
    let context = ExaminationContext {
        server_name,
        neighbours: folder.map_or(Ok(Vec::new()), |folder| neighbours(&folder, &doctor.files))?,
        framework: doctor.framework.as_deref().and_then(frameworks::named),
        known_keys: mscs::registration_keys(),
    };
    let files: Vec<RegistrationFile> = doctor
        .files
        .iter()
        .map(|f| RegistrationFile::read(f))
        .collect();
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    let timeout = (!doctor.offline).then(|| Duration::from_secs(doctor.timeout));
    let report = DoctorReport::new(examine(files, context, timeout).await);
    let printed = if doctor.json {
        serde_json::to_string_pretty(&report).map_err(text)? + "\n"
    } else {
        report.text(&names)
    };
    print(&printed);
    if report.errors > 0 || (doctor.strict && report.warnings > 0) {
        return Err(report.summary());
    }
    Ok(())
}

/// The registrations in a folder, except those that are examined.
fn neighbours(folder: &Path, examined: &[std::path::PathBuf]) -> Result<Vec<File>, String> {
    let whole = |path: &Path| path.canonicalize().ok();
    let examined: Vec<_> = examined.iter().filter_map(|file| whole(file)).collect();
    let mut files = read_folder(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    files.retain(|(name, _)| whole(&folder.join(name)).is_none_or(|f| !examined.contains(&f)));
    Ok(files)
}
