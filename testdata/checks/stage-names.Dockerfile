FROM scratch AS Foo
FROM scratch AS foo
FROM foo AS scratch
FROM scratch AS BAR
