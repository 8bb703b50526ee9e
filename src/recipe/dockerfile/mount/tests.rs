use super::*;

fn word(text: &str) -> Word {
    Spanned::new(text.to_owned(), Span::new(100, 100 + text.len()))
}

fn read(text: &str) -> Result<Mount, Diagnostic> {
    parse(&word(text), Span::new(92, 100 + text.len()), '\\', &mut Vec::new())
}

fn value(word: &Option<Word>) -> Option<&str> {
    word.as_ref().map(|word| word.value.as_str())
}

#[test]
fn bind_is_the_default_type() {
    for text in [
        "from=base,source=/a,target=/b,rw",
        "type=bind,from=base,src=/a,dst=/b,readwrite",
        "TYPE=Bind,From=base,Source=/a,Destination=/b,rw=true",
        "target=/b,from=base,source=/a,ro=false,type=bind",
        "target=/b,from=base,source=/a,readonly=0",
        "\"target=/b\",\"from=base\",source=/a,readwrite=T",
    ] {
        let mount = read(text).unwrap();
        let MountKind::Bind { from, source } = &mount.kind else { panic!("{text}: {mount:?}") };
        assert_eq!((value(from), value(source)), (Some("base"), Some("/a")), "{text}");
        assert_eq!((value(&mount.target), mount.readonly), (Some("/b"), Some(false)), "{text}");
    }
    let mount = read("target=$X/\"a,b\"");
    assert!(mount.is_err());
    let mount = read("\"target=$X/a,b\"\"c\"").unwrap();
    assert_eq!((value(&mount.target), mount.readonly), (Some("$X/a,b\"c"), None));
}

#[test]
fn every_type_takes_its_keys() {
    let mount = read("type=cache,id=x,target=/t,sharing=LOCKED,from=a,source=b,mode=0700,uid=1,gid=2").unwrap();
    let MountKind::Cache { id, sharing, from, source, mode, uid, gid } = &mount.kind else { panic!("{mount:?}") };
    assert_eq!((value(id), *sharing, value(from), value(source)), (Some("x"), Sharing::Locked, Some("a"), Some("b")));
    assert_eq!((*mode, *uid, *gid), (Some(0o700), Some(1), Some(2)));
    let MountKind::Cache { sharing: Sharing::Shared, mode: None, .. } = read("type=cache,target=/t").unwrap().kind
    else {
        panic!()
    };
    let MountKind::Tmpfs { size: Some(1_572_864) } = read("type=tmpfs,target=/t,size=1.5m").unwrap().kind else {
        panic!()
    };
    for text in ["type=secret,id=k,env=K,required,mode=400", "type=secret,source=k,env=K,required=true,mode=0400"] {
        let mount = read(text).unwrap();
        let MountKind::Secret { id, env, required: true, mode: Some(0o400), .. } = &mount.kind else {
            panic!("{mount:?}")
        };
        assert_eq!((value(id), value(env)), (Some("k"), Some("K")));
    }
    let MountKind::Ssh { id: None, required: false, .. } = read("type=ssh").unwrap().kind else { panic!() };
}

#[test]
fn places_are_those_of_the_fields() {
    let mount = read("type=bind,source=/a,target=/b").unwrap();
    assert_eq!(mount.target.unwrap().span, Span::new(127, 129));
    assert_eq!(read("type=bnd,target=/b").unwrap_err().span, Span::new(105, 108));
}

#[test]
fn a_variable_in_a_typed_value_is_read_later() {
    let text = word("type=cache,target=/$DIR,uid=${UID},mode=$MODE");
    let mount = parse(&text, text.span, '\\', &mut Vec::new()).unwrap();
    let MountKind::Deferred(later) = &mount.kind else { panic!("{mount:?}") };
    let scope = |name: &str| Some(if name == "UID" { "7" } else { "755" }.to_owned());
    let (mount, warnings) = read_mount(later, &|text| variable::expand(text, '\\', &scope)).unwrap();
    let MountKind::Cache { uid: Some(7), mode: Some(0o755), .. } = mount.kind else { panic!("{mount:?}") };
    assert_eq!((value(&mount.target), warnings.len()), (Some("/$DIR"), 0));
    let wrong = read_mount(later, &|text| variable::expand(text, '\\', &|_| None)).unwrap_err();
    assert_eq!(wrong.message, "invalid value for uid: ");
    // A path with a variable is nothing special.
    assert!(matches!(read("type=cache,target=$X").unwrap().kind, MountKind::Cache { .. }));
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (text, message) in [
        ("", "this is not a list of key=value: it is empty"),
        ("a\"b", "this is not a list of key=value: a \" may stand only around a whole key=value"),
        ("\"a=b\"c", "this is not a list of key=value: extraneous or missing \" in a field"),
        ("\"a=b", "this is not a list of key=value: extraneous or missing \" in a field"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("target=/a,", "invalid field '' must be a key=value pair"),
        ("tagret=/a", "unexpected key 'tagret' in 'tagret=/a'"),
        ("type=bnid,target=/a", "unsupported mount type \"bnid\""),
        ("type=cache,sharing=none", "unsupported sharing value \"none\""),
        ("target=/a,required", "unexpected key 'required' for mount type 'bind'"),
        ("required,type=secret,id=a", "unexpected key 'required' for mount type 'bind'"),
        ("size=1,type=tmpfs", "unexpected key 'size' for mount type 'bind'"),
        ("env=A", "unexpected key 'env' for mount type 'bind'"),
        ("type=tmpfs,size=lots", "invalid value for size: lots"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("type=cache,mode=9", "invalid value for mode: 9"),
        ("type=cache,uid=-1", "invalid value for uid: -1"),
        ("type=cache,gid=4294967296", "invalid value for gid: 4294967296"),
        ("mode=755", "mode not allowed for \"bind\" type mounts"),
        ("type=tmpfs,uid=1", "uid not allowed for \"tmpfs\" type mounts"),
        ("sharing=locked", "invalid cache sharing set for bind mount"),
        ("type=secret", "invalid secret mount: one of id, source, target required"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=ssh,source=b", "ssh mount does not support source"),
        ("from=$X,target=/a", "'from' doesn't support variable expansion"),
    ] {
        assert_eq!(
            read(text).map(|mount| format!("{mount:?}")).map_err(|error| error.message),
            Err(message.to_owned()),
            "{text}"
        );
    }
    assert_eq!(read("tagret=/a").unwrap_err().help.as_deref(), Some("did you mean target?"));
    assert!(read("from=$,target=/a").is_ok());
}

#[test]
fn keys_without_effect_are_told() {
    for (text, count) in [("type=tmpfs,target=/a,source=b,from=c", 2), ("id=x,target=/a", 1), ("target=/a", 0)] {
        let mut warnings = Vec::new();
        parse(&word(text), Span::default(), '\\', &mut warnings).unwrap();
        assert_eq!(warnings.len(), count, "{text}");
    }
}
