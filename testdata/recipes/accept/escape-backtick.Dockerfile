# escape=`
FROM mcr.example.com/windows/servercore:ltsc2022
SHELL ["powershell", "-Command"]
RUN Get-Item C:\ ; `
    Write-Host `
    done
WORKDIR C:\app
COPY src C:\app\
