//! [`MatrixFile`] -> [`Matrix`]: checks everything that depends only on the file and the names of known images.
//!
//! Pure. Wrong parts are reported and left out, so that one pass finds as much as possible.

use std::{collections::HashMap, ops::Range};

use indexmap::IndexMap;

use crate::{
    Dependencies, Image, ImageSource, InstallFrom, NetworkRules, Results, Runner, RunnerKind, SuiteOptions,
    error::Mistakes,
    exclude::Excludes,
    file::{ImageTable, MatrixFile, PackageTable, SuiteTable},
    guest::GuestSize,
    located::At,
    network,
    prepare::{self, ImagePrepare},
    quantity::{self, Limits},
    repositories::{self, MatrixRepository},
    rules::{self, Include},
    runner,
    script::{Script, two_scripts},
    source, steps, text,
};

/// A matrix that is correct in itself. Its files are not read yet.
pub(crate) struct Matrix {
    pub(crate) package: Option<PackageTable>,
    pub(crate) runner: Runner,
    pub(crate) network: NetworkRules,
    pub(crate) repositories: Vec<MatrixRepository>,
    pub(crate) guest: GuestSize,
    pub(crate) limits: Limits,
    pub(crate) images: Vec<MatrixImage>,
    pub(crate) axes: IndexMap<String, Vec<String>>,
    pub(crate) excludes: Excludes,
    pub(crate) includes: Vec<Include>,
    pub(crate) suites: Vec<Suite>,
}

/// An image, and the guest table for it.
pub(crate) struct MatrixImage {
    /// Its `prepare` is filled in by [`crate::expand`].
    pub(crate) image: Image,
    /// The file on this machine that it comes from, as written.
    pub(crate) file: Option<At<String>>,
    pub(crate) prepare: Option<ImagePrepare>,
    pub(crate) install: Option<InstallFrom>,
    pub(crate) dependencies: Option<Dependencies>,
    pub(crate) guest: GuestSize,
}

/// A suite.
pub(crate) struct Suite {
    pub(crate) name: At<String>,
    pub(crate) script: Script,
    pub(crate) env: Vec<(String, At<String>)>,
    pub(crate) files: Vec<At<String>>,
    pub(crate) options: SuiteOptions,
    pub(crate) install_from: Option<InstallFrom>,
    pub(crate) dependencies: Option<Dependencies>,
    pub(crate) guest: GuestSize,
    pub(crate) limits: Limits,
}

/// Checks the file. The result is complete only if no mistake was found.
pub(crate) fn validate(file: MatrixFile, catalog: &[&str], mistakes: &mut Mistakes) -> Matrix {
    if let Some(package) = &file.package {
        text::check_name(&package.name, "package", mistakes);
        if let Some(version) = &package.version {
            text::check_name(version, "package's version", mistakes);
        }
    }
    if let Some(empty) =
        file.package.as_ref().and_then(|package| package.artifacts.as_ref()).filter(|at| at.get().is_empty())
    {
        let problem = mistakes.at(empty.span(), "the package has no artifacts, so nothing would be installed", "empty");
        mistakes.push(problem.with_help("name its files, or remove this line if the suites install it themselves"));
    }
    let images = images(&file, catalog, mistakes);
    let axes = rules::axes(&file.axes, mistakes);
    let installable = file.package.as_ref().is_some_and(|package| !package.artifacts().is_empty());
    let suites = suites(&file, installable, mistakes);
    let image_names = images.iter().map(|image| image.image.name.as_str());
    let dimensions = rules::Dimensions::new(image_names, suites.iter().map(|suite| suite.name.text()), &axes);
    let excludes = Excludes::new(&file.exclude, &dimensions, mistakes);
    let includes = rules::includes(&file.include, &dimensions, mistakes);
    let guest = GuestSize::check(&file.guest, &file.runner, mistakes);
    let runner = runner::check(&file.runner, mistakes);
    if let Some(image) = file.runner.image.as_ref().filter(|_| runner.kind != RunnerKind::Gce) {
        source::check_in_catalog(image, catalog, mistakes);
    }
    if let (Some(budget), Some(at)) = (runner.memory, &file.runner.memory) {
        let usual = crate::Guest::default().memory;
        let all_say = |mut sizes: Box<dyn Iterator<Item = &GuestSize> + '_>| !sizes.any(GuestSize::leaves_memory_open);
        let said = !guest.leaves_memory_open()
            || all_say(Box::new(images.iter().map(|image| &image.guest)))
            || all_say(Box::new(suites.iter().map(|suite| &suite.guest)));
        if budget < usual && !said {
            mistakes.push(
                mistakes
                    .at(
                        at.span(),
                        format!("the guest has more memory than the runner: {usual} by default"),
                        "the runner's",
                    )
                    .with_help("raise it, or write a smaller `memory` in `[guest]`"),
            );
        }
    }
    let limits = Limits::check(&file.timeout, mistakes);
    let network = network::check(&file.network, mistakes);
    let image_names: Vec<_> = images.iter().map(|image| image.image.name.as_str()).collect();
    let repositories = repositories::check(&file.repository, &image_names, mistakes);
    Matrix {
        package: file.package,
        runner,
        network,
        repositories,
        guest,
        limits,
        images,
        axes,
        excludes,
        includes,
        suites,
    }
}

/// The first place of every name, to show where a name is already used.
#[derive(Default)]
struct Names(HashMap<String, Range<usize>>);

impl Names {
    /// `false`, and a mistake, if the name is already used.
    fn take(&mut self, at: &At<String>, what: &str, mistakes: &mut Mistakes) -> bool {
        if let Some(first) = self.0.get(at.text()) {
            let message = format!("two {what}s are named `{}`", at.text());
            let problem = mistakes.at(at.span(), message, "the second").with_label(first.clone(), "the first");
            mistakes.push(
                problem.with_help(format!("rename or remove one: the name of the {what} is part of its cells' names")),
            );
            return false;
        }
        self.0.insert(at.text().to_owned(), at.span()).is_none()
    }
}

fn images(file: &MatrixFile, catalog: &[&str], mistakes: &mut Mistakes) -> Vec<MatrixImage> {
    let short = file.images.iter().map(|name| (name, None));
    let tables = file.image.iter().map(|table| (&table.name, Some(table)));
    let mut images: Vec<(&At<String>, Option<&ImageTable>)> = short.chain(tables).collect();
    images.sort_by_key(|(name, _)| name.span().start);
    if images.is_empty() {
        let known = catalog.iter().take(3).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        mistakes.push(
            mistakes
                .at(0..0, "the matrix has no image", "no image in this file")
                .with_help(format!("name at least one, for example `images = [{known}]`")),
        );
    }
    let mut names = Names::default();
    let mut valid = Vec::new();
    for (name, table) in images {
        if mistakes.is_full() {
            break;
        }
        text::check_name(name, "image", mistakes);
        let from = table.and_then(|table| table.from.as_ref()).unwrap_or(name);
        let source = source::check(name, table, catalog, mistakes);
        if let Some(words) = table.and_then(|table| table.kernel_args.as_ref()) {
            text::check_no_nul(words, mistakes);
        }
        // A duplicate name is left out, so that it causes no further mistakes.
        if names.take(name, "image", mistakes) {
            valid.push(MatrixImage {
                image: Image {
                    name: name.text().to_owned(),
                    from: from.text().to_owned(),
                    // An invalid one has been reported by now.
                    source: source.unwrap_or(ImageSource::Catalog),
                    kernel_args: quantity::words(table.and_then(|table| table.kernel_args.as_ref())),
                    prepare: None,
                },
                file: table.and_then(source::file_of).cloned(),
                prepare: table
                    .and_then(|table| table.prepare.as_ref())
                    .and_then(|table| prepare::check(table, mistakes)),
                install: table.and_then(|table| table.install),
                dependencies: table.and_then(|table| table.dependencies),
                guest: table.map(|table| GuestSize::check(&table.guest, &file.runner, mistakes)).unwrap_or_default(),
            });
        }
    }
    valid
}

fn suites(file: &MatrixFile, installable: bool, mistakes: &mut Mistakes) -> Vec<Suite> {
    if file.suite.is_empty() {
        mistakes.push(mistakes.at(0..0, "the matrix has no suite", "no suite in this file").with_help(
            "add one: a table `[[suite]]` with a `name` and a script, `run = \"tests/smoke.sh\"` or `inline = \"...\"`",
        ));
    }
    let mut names = Names::default();
    let mut valid = Vec::new();
    for table in &file.suite {
        if mistakes.is_full() {
            break;
        }
        text::check_name(&table.name, "suite", mistakes);
        let taken = !names.take(&table.name, "suite", mistakes);
        if let (Some(suite), false) = (suite(table, file, installable, mistakes), taken) {
            valid.push(suite);
        }
    }
    valid
}

fn suite(table: &SuiteTable, file: &MatrixFile, installable: bool, mistakes: &mut Mistakes) -> Option<Suite> {
    let steps = steps::check(table, installable, mistakes);
    steps::check_survival(table, &steps, mistakes);
    for (name, value) in &table.env {
        check_env(name, value, mistakes);
    }
    for glob in &table.artifacts {
        if let Err((message, help)) = text::guest_glob(glob.text()) {
            mistakes.push(mistakes.at(glob.span(), message, "a path in the guest").with_help(help));
        }
    }
    let results = table.results.as_ref().and_then(|results| check_results(results, mistakes));
    let guest = GuestSize::check(&table.guest, &file.runner, mistakes);
    let limits = Limits::check(&table.timeout, mistakes);
    let script = match (&table.run, &table.inline) {
        (Some(file), None) => Script::File(file.clone()),
        (None, Some(text)) => Script::Inline(text.clone()),
        (Some(file), Some(text)) => {
            two_scripts("suite", file, text, mistakes);
            return None;
        }
        (None, None) => {
            let message = format!("the suite `{}` has no script", table.name.text());
            mistakes.push(
                mistakes
                    .at(table.name.span(), message, "nothing to run")
                    .with_help("add `run = \"tests/smoke.sh\"` or `inline = \"...\"`"),
            );
            return None;
        }
    };
    Some(Suite {
        name: table.name.clone(),
        script,
        env: table.env.iter().map(|(name, value)| (name.text().to_owned(), value.clone())).collect(),
        files: table.files.clone(),
        options: SuiteOptions {
            boot: table.boot.unwrap_or_default(),
            identity: table.identity.unwrap_or_default(),
            steps,
            reboot: table.reboot,
            results,
            artifacts: table.artifacts.iter().map(|glob| glob.text().to_owned()).collect(),
        },
        install_from: table.install.as_ref().and_then(|install| install.get().from()),
        dependencies: table.dependencies,
        guest,
        limits,
    })
}

fn check_env(name: &At<String>, value: &At<String>, mistakes: &mut Mistakes) {
    text::check_no_nul(value, mistakes);
    let problem = if !text::is_identifier(name.text()) {
        mistakes
            .at(name.span(), format!("{:?} cannot name an environment variable", name.text()), "not a variable's name")
            .with_help("use letters, digits and `_`, not beginning with a digit")
    } else if name.text().starts_with("NESTMATRIX_") {
        mistakes
            .at(name.span(), format!("`{}` is reserved", name.text()), "set by nestmatrix")
            .with_help("names that begin with `NESTMATRIX_` are set by nestmatrix itself: choose another one")
    } else {
        return;
    };
    mistakes.push(problem);
}

fn check_results(at: &At<String>, mistakes: &mut Mistakes) -> Option<Results> {
    let problem = match at.text().split_once(':') {
        Some(("junit", glob)) => match text::guest_glob(glob) {
            Ok(()) => return Some(Results::Junit { glob: glob.to_owned() }),
            Err((message, help)) => mistakes.at(at.span(), message, "a path in the guest").with_help(help),
        },
        _ => mistakes
            .at(at.span(), format!("`{}` does not say where results are", at.text()), "not `junit:` and a path")
            .with_help("write the format and an absolute glob in the guest, for example `junit:/tmp/results/*.xml`"),
    };
    mistakes.push(problem);
    None
}
